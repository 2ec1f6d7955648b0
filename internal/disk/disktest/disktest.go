// Package disktest is one suite of tests that every implementation of disk.Disk and disk.Layer passes. A slice of
// bytes beside the disk is what it must hold.
package disktest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"vmreplica/internal/disk"
)

// Subject is an implementation under test.
type Subject struct {
	// Open makes a new disk of size bytes, which is closed at the test's end: a base that reads as zeros, or a
	// layer with nothing in it.
	Open func(t *testing.T, size int64) disk.Disk
	// Reopen closes the disk and opens what it left; nil where nothing is left.
	Reopen func(t *testing.T, d disk.Disk) disk.Disk
	// Holes says that an unmapped range of 64 KiB is told from data, and takes no space.
	Holes bool
}

// sizes are those that a disk may have, on and off every boundary.
var sizes = []int64{512, 4096 - 512, 4096, 64<<10 - 512, 64 << 10, 64<<10 + 512, 1<<20 + 3*512, 3<<20 + 4096}

// Base tests a disk that holds all its bytes.
func Base(t *testing.T, s Subject) {
	run(t, s, kind{grain: 1})
	t.Run("unaligned", func(t *testing.T) { unaligned(t, s) })
	if s.Holes {
		t.Run("an unmapped range is a hole", func(t *testing.T) { holes(t, s) })
	}
}

// Layer tests a differencing disk: what was never written is absent.
func Layer(t *testing.T, s Subject) {
	run(t, s, kind{grain: 4096, absent: true})
	t.Run("a write that would need what is below is refused", func(t *testing.T) { partial(t, s) })
}

// kind is what distinguishes a base from a layer: the grain of its writes, and whether ranges may be absent.
type kind struct {
	grain  int64
	absent bool
}

func run(t *testing.T, s Subject, k kind) {
	cases := []struct {
		name string
		test func(*testing.T, Subject, kind)
	}{
		{"a new disk", newDisk},
		{"a range outside is refused and changes nothing", outside},
		{"extents of every alignment", alignments},
		{"extents may be left early", leaveEarly},
		{"flushed content is found again", reopened},
		{"writers and readers of different ranges", together},
		{"histories", histories},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(t, s, k) })
	}
}

func newDisk(t *testing.T, s Subject, k kind) {
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			d := s.Open(t, size)
			if got := d.Size(); got != size {
				t.Errorf("size %d, want %d", got, size)
			}
			if sector := d.LogicalSectorSize(); sector != 512 && sector != 4096 {
				t.Errorf("logical sector of %d bytes", sector)
			}
			if allocated, known := d.AllocatedBytes(); known && allocated < 0 {
				t.Errorf("%d bytes allocated", allocated)
			}
			newModel(size, k).check(t, d)
			must(t, d.Flush())
		})
	}
}

// outside asks for every kind of range that leaves the disk.
func outside(t *testing.T, s Subject, k kind) {
	const size = 1<<20 + 512
	d, m := s.Open(t, size), newModel(size, k)
	m.write(t, d, 0, size)
	ranges := []struct{ off, n int64 }{
		{-1, 512}, {-512, 1024}, {math.MinInt64, 512}, {size, 1}, {size - 511, 512}, {size + 1, 0}, {0, size + 1},
		{1 << 31, 512}, {1 << 32, 4096}, {math.MaxInt64, 512}, {math.MaxInt64 - 511, 512}, {math.MaxInt64, 0},
	}
	for _, r := range ranges {
		if r.n <= size+1 {
			_, err := d.ReadAt(make([]byte, r.n), r.off)
			refused(t, "ReadAt", r.off, r.n, err)
			_, err = d.WriteAt(make([]byte, r.n), r.off)
			refused(t, "WriteAt", r.off, r.n, err)
		}
		outsideRange(t, d, r.off, r.n)
	}
	for _, n := range []int64{-1, math.MinInt64, math.MaxInt64} {
		outsideRange(t, d, 4096, n)
	}
	m.check(t, d)
}

func outsideRange(t *testing.T, d disk.Disk, off, n int64) {
	refused(t, "Zero", off, n, d.Zero(off, n))
	refused(t, "Unmap", off, n, d.Unmap(off, n))
	var found error
	for e, err := range d.Extents(off, n) {
		if err == nil {
			t.Errorf("Extents(%d, %d) gave %+v", off, n, e)
		}
		found = err
	}
	refused(t, "Extents", off, n, found)
}

func refused(t *testing.T, call string, off, n int64, err error) {
	t.Helper()
	if !errors.Is(err, disk.ErrRange) {
		t.Errorf("%s of %d bytes at %d: %v, want ErrRange", call, n, off, err)
	}
}

// alignments lays data, zeros and holes side by side and asks for the extents of ranges on and off their edges.
func alignments(t *testing.T, s Subject, k kind) {
	const size = 1<<20 + 512
	d, m := s.Open(t, size), newModel(size, k)
	m.write(t, d, 64<<10, 64<<10)
	m.write(t, d, 256<<10, 4<<10)
	m.write(t, d, 512<<10, 128<<10)
	m.unmap(t, d, 544<<10, 64<<10)
	m.zero(t, d, 320<<10, 8<<10)
	m.write(t, d, 1<<20, 512)
	edges := []int64{0, 64 << 10, 128 << 10, 256 << 10, 260 << 10, 320 << 10, 328 << 10, 512 << 10, 544 << 10, 608 << 10,
		640 << 10, 1 << 20, size}
	var offsets []int64
	for _, edge := range edges {
		for _, by := range []int64{-4096, -512, -1, 0, 1, 511, 512, 4096} {
			if at := edge + by; at >= 0 && at <= size {
				offsets = append(offsets, at)
			}
		}
	}
	for _, from := range offsets {
		for _, to := range offsets {
			if from <= to {
				m.checkExtents(t, d, from, to-from)
			}
		}
	}
}

func leaveEarly(t *testing.T, s Subject, k kind) {
	const size = 1 << 20
	d, m := s.Open(t, size), newModel(size, k)
	for off := int64(0); off < size; off += 128 << 10 {
		m.write(t, d, off, 64<<10)
	}
	for stop := range 8 {
		seen := 0
		for _, err := range d.Extents(0, size) {
			must(t, err)
			if seen == stop {
				break
			}
			seen++
		}
	}
	m.check(t, d)
}

func reopened(t *testing.T, s Subject, k kind) {
	if s.Reopen == nil {
		t.Log("nothing is left to open")
		return
	}
	const size = 1<<20 + 512
	d, m := s.Open(t, size), newModel(size, k)
	m.write(t, d, 128<<10, 300<<10)
	m.zero(t, d, 192<<10, 64<<10)
	m.unmap(t, d, 256<<10, 64<<10)
	m.write(t, d, 1<<20, 512)
	must(t, d.Flush())
	d = s.Reopen(t, d)
	m.check(t, d)
	m.write(t, d, 256<<10, 8<<10)
	must(t, d.Flush())
	m.check(t, s.Reopen(t, d))
}

// together writes from several sides at once, each to its own range, and reads what another has finished.
func together(t *testing.T, s Subject, k kind) {
	const workers, share, rounds = 4, 256 << 10, 24
	size := int64(workers * share)
	d := s.Open(t, size)
	models := make([]*model, workers)
	var group sync.WaitGroup
	for w := range workers {
		models[w] = newModel(size, k)
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for range rounds {
				off, n := models[w].pick(random, share)
				models[w].change(t, d, random.IntN(3), int64(w)*share+off, n)
				models[w].checkRange(t, d, int64(w)*share, share)
				if random.IntN(6) == 0 {
					mustNot(t, d.Flush())
				}
			}
		})
	}
	group.Wait()
	for w, m := range models {
		m.checkRange(t, d, int64(w)*share, share)
	}
}

func unaligned(t *testing.T, s Subject) {
	const size = 256<<10 + 512
	d, m := s.Open(t, size), newModel(size, kind{grain: 1})
	m.write(t, d, 0, size)
	for _, off := range []int64{0, 1, 511, 512, 513, 4095, 4096, 65535, 65536, size - 513, size - 1} {
		for _, n := range []int64{0, 1, 2, 511, 512, 513, 4096, 4097, 65536, 70001} {
			if off+n > size {
				continue
			}
			m.write(t, d, off, n)
			m.zero(t, d, off, n)
			m.checkRange(t, d, max(off-512, 0), min(n+1024, size-max(off-512, 0)))
			m.write(t, d, off, n)
			m.unmap(t, d, off, n)
			m.checkRange(t, d, max(off-512, 0), min(n+1024, size-max(off-512, 0)))
			m.write(t, d, max(off-100, 0), 100)
		}
	}
	m.check(t, d)
}

// holes makes holes and data of one another, and looks at the extents and the space each time.
func holes(t *testing.T, s Subject) {
	const size, part = 1 << 20, 64 << 10
	d, m := s.Open(t, size), newModel(size, kind{grain: 1})
	expect := func(off int64, want disk.Kind) {
		t.Helper()
		for e, err := range d.Extents(off, part) {
			must(t, err)
			if e.Kind != want {
				t.Errorf("%+v, want kind %d", e, want)
			}
		}
	}
	expect(2*part, disk.Unmapped)
	m.write(t, d, 0, size)
	must(t, d.Flush())
	full, known := d.AllocatedBytes()
	if !known || full < size {
		t.Fatalf("%d bytes allocated (%t) of %d written", full, known, size)
	}
	expect(2*part, disk.Data)
	m.unmap(t, d, 2*part, part)
	expect(2*part, disk.Unmapped)
	expect(3*part, disk.Data)
	must(t, d.Flush())
	if left, _ := d.AllocatedBytes(); left > full-part {
		t.Errorf("%d bytes allocated after %d of %d were unmapped", left, part, full)
	}
	m.write(t, d, 2*part+4096, 4096)
	m.check(t, d)
	m.unmap(t, d, 0, size)
	expect(0, disk.Unmapped)
	m.check(t, d)
}

func partial(t *testing.T, s Subject) {
	const size = 64<<10 + 512
	d, m := s.Open(t, size), newModel(size, kind{grain: 4096, absent: true})
	for _, r := range []struct{ off, n int64 }{{0, 512}, {512, 4096}, {4096, 4097}, {8192, 100}, {64 << 10, 511}} {
		if _, err := d.WriteAt(make([]byte, r.n), r.off); err == nil {
			t.Errorf("a write of %d bytes at %d was accepted", r.n, r.off)
		}
		if d.Zero(r.off, r.n) == nil {
			t.Errorf("zeroing %d bytes at %d was accepted", r.n, r.off)
		}
		if d.Unmap(r.off, r.n) == nil {
			t.Errorf("unmapping %d bytes at %d was accepted", r.n, r.off)
		}
	}
	m.check(t, d)
	m.write(t, d, 64<<10, 512)
	m.check(t, d)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustNot is must for goroutines that are not the test's own.
func mustNot(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
