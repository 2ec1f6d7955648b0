package vhdx_test

import (
	"io"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
)

// benchmarked is how much is read, in pieces of 1 MiB, from memory.
const benchmarked = 256 * mib

// BenchmarkRead reads a dynamic file in order, and a raw file of the same bytes beside it.
func BenchmarkRead(b *testing.B) {
	directory := memoryDir(b)
	i, err := vhdx.Create(newFile(b, filepath.Join(directory, "disk")), vhdx.Options{SizeBytes: benchmarked})
	must(b, err)
	raw := newFile(b, filepath.Join(directory, "raw"))
	p := content(42)
	for at := int64(0); at < benchmarked; at += grain {
		_, err := i.WriteAt(p, at)
		must(b, err)
		_, err = raw.WriteAt(p, at)
		must(b, err)
	}
	must(b, i.Close())
	d, err := vhdx.Open(openFile(b, filepath.Join(directory, "disk")), durable.ReadOnly)
	must(b, err)
	for name, from := range map[string]io.ReaderAt{"vhdx": d, "raw": raw} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchmarked)
			buffer := make([]byte, mib)
			for b.Loop() {
				for at := int64(0); at < benchmarked; at += mib {
					_, err := from.ReadAt(buffer, at)
					must(b, err)
				}
			}
		})
	}
}
