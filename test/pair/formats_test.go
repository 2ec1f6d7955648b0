package pair_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// formats are those of the primary's image and of the replica's base.
type formats struct{ image, base replication.Format }

// writeImage makes an image of content, in which 4 KiB ranges of zeros have no space.
func writeImage(t *testing.T, path string, f replication.Format, content []byte) {
	t.Helper()
	if f == "raw" {
		writeSparse(t, path, content)
		return
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	image, err := format.Create(durable.NewFile(file), f, format.New{Path: path, SizeBytes: int64(len(content))})
	must(t, err)
	for off := 0; off < len(content); off += 4096 {
		if part := content[off:min(off+4096, len(content))]; !blockdiff.IsZero(part) {
			_, err := image.WriteAt(part, int64(off))
			must(t, err)
		}
	}
	must(t, image.Close())
}

// byQEMU is an image's content as QEMU reads it.
func byQEMU(t *testing.T, path string, f replication.Format) []byte {
	t.Helper()
	driver := string(f)
	if f == "vhd" {
		driver = "vpc"
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if output, err := exec.Command("qemu-img", "convert", "-f", driver, "-O", "raw", path, plain).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, output)
	}
	content, err := os.ReadFile(plain)
	must(t, err)
	return content
}

// same compares the replica's base, as QEMU reads it, with content.
func (w *world) same(content []byte) {
	w.t.Helper()
	if got := byQEMU(w.t, w.base, w.formats.base); !bytes.Equal(got, content) {
		w.t.Fatalf("the replica's base, %d bytes, is not the primary's disk, %d bytes", len(got), len(content))
	}
}

// TestEveryFormatOntoEveryFormat copies and resynchronizes each onto each, over connections that are cut, and compares
// what QEMU reads.
func TestEveryFormatOntoEveryFormat(t *testing.T) {
	const size = 5*mib + 4096
	base := scattered(make([]byte, size), 1, 6)
	copy(base[2*mib:], random(2, mib))
	primary := scattered(base, 3, 40)
	clear(primary[4*mib+65536 : 4*mib+3*65536])
	for _, image := range replication.Formats {
		for _, onto := range replication.Formats {
			f := formats{image, onto}
			t.Run(fmt.Sprintf("%s onto %s", image, onto), func(t *testing.T) {
				w := newWorldOf(t, f, primary, nil, nil)
				w.cutAfter(7, 2)
				w.transfer(replication.KindInitial)
				w.same(primary)
				for _, after := range []int{2, 5, 11} {
					w := newWorldOf(t, f, primary, base, nil)
					w.cutAfter(after, 3)
					w.transfer(replication.KindResync)
					w.merge()
					w.same(primary)
				}
			})
		}
	}
}

// cutAfter lets the first streams end after that many messages.
func (w *world) cutAfter(messages, streams int) {
	cuts := 0
	w.mangle = func(_ *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream {
		if cuts++; cuts > streams {
			return stream
		}
		left := messages
		return cutter{stream, &left}
	}
}
