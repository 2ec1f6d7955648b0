package qcow2_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// The benchmarks write 64 MiB in 4 KiB and flush once, into an overlay and into a raw file beside it.
const benchmarked = 64 << 20

func BenchmarkWrite(b *testing.B) {
	offsets := make([]int64, benchmarked/grain)
	for i := range offsets {
		offsets[i] = int64(i) * grain
	}
	scattered := make([]int64, len(offsets))
	for i, g := range rand.New(rand.NewPCG(1, 1)).Perm(benchmarked * 16 / grain)[:len(offsets)] {
		scattered[i] = int64(g) * grain
	}
	for name, order := range map[string][]int64{"sequential": offsets, "random": scattered} {
		b.Run(name+"/overlay", func(b *testing.B) { benchmarkWrite(b, order, newBenchOverlay) })
		b.Run(name+"/raw", func(b *testing.B) { benchmarkWrite(b, order, newBenchRaw) })
	}
}

type target interface {
	WriteAt(p []byte, off int64) (int, error)
	Flush() error
	Close() error
}

type rawTarget struct{ durable.File }

func (r rawTarget) Flush() error { return r.Sync() }

func newBenchFile(b *testing.B) durable.File {
	file, err := os.Create(filepath.Join(b.TempDir(), "disk"))
	must(b, err)
	return durable.NewFile(file)
}

func newBenchOverlay(b *testing.B) target {
	o, err := qcow2.Create(newBenchFile(b), benchmarked*16)
	must(b, err)
	return o
}

func newBenchRaw(b *testing.B) target {
	file := newBenchFile(b)
	must(b, file.Truncate(benchmarked*16))
	return rawTarget{file}
}

func benchmarkWrite(b *testing.B, offsets []int64, open func(*testing.B) target) {
	b.SetBytes(benchmarked)
	p := content(42)
	for range b.N {
		b.StopTimer()
		to := open(b)
		b.StartTimer()
		for _, off := range offsets {
			_, err := to.WriteAt(p, off)
			must(b, err)
		}
		must(b, to.Flush())
		b.StopTimer()
		must(b, to.Close())
		b.StartTimer()
	}
}
