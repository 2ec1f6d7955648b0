package vhd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

// TestAStampOutlivesTheClosing takes it from an open file, goes on writing, takes it again and closes: the last one is
// the closed file's.
func TestAStampOutlivesTheClosing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vhd")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	image, err := vhd.Create(durable.NewFile(file), vhd.Options{SizeBytes: 1 << 30})
	must(t, err)
	var last disk.Stamp
	content := bytes.Repeat([]byte{7}, 3<<20)
	for _, off := range []int64{0, 512 << 20, 100 << 20} {
		_, err = image.WriteAt(content, off)
		must(t, err)
		stamp, err := image.Stamp()
		must(t, err)
		if stamp == last {
			t.Fatal("a write left the stamp as it was")
		}
		last = stamp
	}
	must(t, image.Close())
	again, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	closed, err := disk.StampOf(again.Fd())
	must(t, err)
	if difference := last.Difference(closed); difference != "" {
		t.Fatalf("closing changed the file: %s", difference)
	}
	image, err = vhd.Open(durable.NewFile(again), durable.ReadWrite)
	must(t, err)
	got := make([]byte, len(content))
	for _, off := range []int64{0, 512 << 20, 100 << 20} {
		_, err = image.ReadAt(got, off)
		must(t, err)
		if !bytes.Equal(got, content) {
			t.Fatalf("the content at %d is lost", off)
		}
	}
	must(t, image.Close())
}
