package merge

import (
	"os"
	"path/filepath"
	"testing"

	"vmreplica/agent-replica/storage"
	"vmreplica/internal/disk"
)

// grownBase is a base of a size, of which so much has space.
type grownBase struct {
	disk.Disk
	size, allocated int64
}

func (b *grownBase) Size() int64                   { return b.size }
func (b *grownBase) AllocatedBytes() (int64, bool) { return b.allocated, true }

// The balloon follows what the base lacks, wherever in the disk that lies: room that is held while the base grows into
// it is what a full storage would need.
func TestTheBalloonIsGivenBackAheadOfWhatTheBaseTakes(t *testing.T) {
	const step, size = int64(bufferBytes), int64(1 << 30)
	for name, growsFrom := range map[string]int64{"at the start": 0, "in the middle": size / 4, "at the end": size / 2} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			files, err := storage.Open(dir, nil)
			check(t, err)
			defer files.Close()
			base := &grownBase{size: size, allocated: size / 2}
			c := &copier{
				merger: New(Config{Space: files}), file: "layer.qcow2", target: base, data: size, held: size,
			}
			check(t, os.WriteFile(filepath.Join(dir, "layer.balloon"), nil, 0o600))
			check(t, os.Truncate(filepath.Join(dir, "layer.balloon"), size/2)) // what the base lacks
			room := size / 2
			for at := int64(0); at < size; at += step {
				check(t, c.deflate())
				if at >= growsFrom && at < growsFrom+size/2 {
					base.allocated += step
				}
				c.data -= step
				if held := balloonSize(t, dir); base.allocated-size/2+held > room {
					t.Fatalf("at %d the base has taken %d bytes of %d and the balloon holds %d", at,
						base.allocated-size/2, room, held)
				} else if lacks := size - base.allocated; held < lacks-2*releaseBytes {
					t.Fatalf("at %d the balloon holds %d bytes and the base lacks %d", at, held, lacks)
				}
			}
		})
	}
}

func balloonSize(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "layer.balloon"))
	check(t, err)
	return info.Size()
}
