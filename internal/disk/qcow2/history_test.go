package qcow2_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// smallCache makes slices come and go, and writes flush by themselves.
var smallCache = qcow2.MetadataLimit(64 << 10)

// TestHistories plays random writes, zeros, unmaps, flushes and reopenings on disks of every kind of size.
func TestHistories(t *testing.T) {
	disktest.OneGoroutine(t)
	sizes := []int64{512, 4096, 4096 + 512, 128 << 10, 129<<10 + 512, 5<<20 + 1536, 700 << 20, 3<<30 + 512, 40 << 30}
	for seed := range uint64(240) {
		size := sizes[seed%uint64(len(sizes))]
		t.Run(fmt.Sprintf("seed %d, %d bytes", seed, size), func(t *testing.T) { playHistory(t, seed, size) })
	}
}

func playHistory(t *testing.T, seed uint64, size int64) {
	r := rand.New(rand.NewPCG(seed, 1))
	file, m := newMemory(), newModel(size)
	o, err := qcow2.Create(file, size, smallCache)
	must(t, err)
	for range 30 {
		switch r.IntN(10) {
		case 0:
			must(t, o.Flush())
		case 1:
			must(t, o.Close())
			o, err = qcow2.Open(file.clone(), durable.ReadOnly, smallCache)
			must(t, err)
			m.check(t, o)
			o, err = qcow2.Open(file, durable.ReadWrite, smallCache)
			must(t, err)
		default:
			m.random(t, o, r)
		}
	}
	m.check(t, o)
	must(t, o.Flush())
	again, err := qcow2.Open(file.clone(), durable.ReadOnly)
	must(t, err)
	m.check(t, again)
}
