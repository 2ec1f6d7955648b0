package main

import (
	"context"
	"os"
	"path/filepath"
)

// volume is an XFS in a sparse file, mounted: its files may be far larger than it is.
type volume struct{ file, mount string }

// makeVolume mounts a volume of size bytes. It takes of dir what is written to it, so it may be generous.
func makeVolume(ctx context.Context, dir string, size int64) (*volume, error) {
	v := &volume{file: filepath.Join(dir, "volume.xfs"), mount: filepath.Join(dir, "volume")}
	if err := os.MkdirAll(v.mount, 0o700); err != nil {
		return nil, err
	}
	if err := makeSparse(v.file, size); err != nil {
		return nil, err
	}
	return v, every(ctx, []string{"mkfs.xfs", "-q", v.file}, []string{"mount", "-o", "loop", v.file, v.mount})
}

// remove unmounts; the file goes with its directory. It fails when nothing was mounted, which is no loss.
func (v *volume) remove() {
	_, _ = output(context.Background(), "umount", v.mount)
	_ = os.Remove(v.file)
}
