package qcow2_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
)

// BenchmarkImageRead reads 256 MiB in pieces of 1 MiB, from an image and from a raw file beside it; both are cached.
func BenchmarkImageRead(b *testing.B) {
	const size = 256 << 20
	b.Run("image", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "image")
		i := createImage(b, path, qcow2.ImageOptions{SizeBytes: size})
		readSequentially(b, i)
	})
	b.Run("raw", func(b *testing.B) {
		file, err := os.Create(filepath.Join(b.TempDir(), "raw"))
		must(b, err)
		must(b, file.Truncate(size))
		d, err := raw.Open(durable.NewFile(file), raw.Options{Path: file.Name(), Access: imagelock.Write})
		must(b, err)
		b.Cleanup(func() { d.Close() })
		readSequentially(b, d)
	})
}

func readSequentially(b *testing.B, d disk.Disk) {
	p := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	for off := int64(0); off < d.Size(); off += int64(len(p)) {
		_, _ = r.Read(p)
		_, err := d.WriteAt(p, off)
		must(b, err)
	}
	must(b, d.Flush())
	b.SetBytes(d.Size())
	for b.Loop() {
		for off := int64(0); off < d.Size(); off += int64(len(p)) {
			_, err := d.ReadAt(p, off)
			must(b, err)
		}
	}
}
