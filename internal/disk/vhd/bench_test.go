package vhd_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

// benchmarked is read in pieces of 1 MiB from a fixed disk, a dynamic one and a raw file beside them, all of it in
// the page cache; and written so, with one Flush at the end.
const benchmarked = 256 << 20

type target interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Close() error
}

type rawTarget struct{ durable.File }

func (r rawTarget) Flush() error { return r.Sync() }

var targets = map[string]func(testing.TB, durable.File) target{
	"raw": func(_ testing.TB, file durable.File) target { return rawTarget{file} },
	"fixed": func(t testing.TB, file durable.File) target {
		base, err := vhd.Create(file, vhd.Options{SizeBytes: benchmarked, Fixed: true})
		must(t, err)
		return base
	},
	"dynamic": func(t testing.TB, file durable.File) target {
		base, err := vhd.Create(file, vhd.Options{SizeBytes: benchmarked})
		must(t, err)
		return base
	},
	"differencing": func(t testing.TB, file durable.File) target {
		layer, err := vhd.CreateDifferencing(file, vhd.Options{SizeBytes: benchmarked})
		must(t, err)
		return layer
	},
}

func BenchmarkRead(b *testing.B) {
	for name, open := range targets {
		b.Run(name, func(b *testing.B) {
			from := open(b, newFile(b, filepath.Join(b.TempDir(), "disk")))
			defer from.Close()
			writeAll(b, from)
			p := make([]byte, 1<<20)
			b.SetBytes(benchmarked)
			for b.Loop() {
				for off := int64(0); off < benchmarked; off += int64(len(p)) {
					_, err := from.ReadAt(p, off)
					must(b, err)
				}
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, open := range targets {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "disk")
			b.SetBytes(benchmarked)
			for b.Loop() {
				to := open(b, newFile(b, path))
				writeAll(b, to)
				must(b, to.Close())
				must(b, os.Remove(path))
			}
		})
	}
}

func writeAll(b *testing.B, to target) {
	b.Helper()
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i)
	}
	for off := int64(0); off < benchmarked; off += int64(len(p)) {
		_, err := to.WriteAt(p, off)
		must(b, err)
	}
	must(b, to.Flush())
}
