package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
)

const grain = 4096

// image is what an Image and a Layer have in common.
type image interface {
	disk.Disk
	disk.Identified
	LimitPages(n int)
}

// shape says what kind of file a test makes.
type shape struct {
	vhdx.Options
	layer bool
}

func (s shape) create(file durable.File) (image, error) {
	if s.layer {
		return vhdx.CreateDifferencing(file, s.Options)
	}
	return vhdx.Create(file, s.Options)
}

func (s shape) open(file durable.File, mode durable.Mode) (image, error) {
	if s.layer {
		return vhdx.OpenDifferencing(file, mode)
	}
	return vhdx.Open(file, mode)
}

// block is the payload block's size.
func (s shape) block() int64 {
	switch {
	case s.BlockBytes != 0:
		return s.BlockBytes
	case s.layer || s.Fixed:
		return 2 * mib
	default:
		return 32 * mib
	}
}

// model is what a file must hold: by grains of 4 KiB the stamp that their bytes repeat, 0 for zeros. What is missing
// is absent from a layer, and zeros in a base.
type model struct {
	shape
	stamps map[int64]uint64
	last   uint64
}

func newModel(s shape) *model { return &model{shape: s, stamps: make(map[int64]uint64)} }

// content is a grain that carries the stamp; every sector of it can be told from another stamp's.
func content(stamp uint64) []byte {
	p := make([]byte, grain)
	repeat(p, stamp)
	return p
}

// repeat fills p with the stamp.
func repeat(p []byte, stamp uint64) {
	binary.BigEndian.PutUint64(p, stamp)
	for done := 8; done < len(p); done *= 2 {
		copy(p[done:], p[:done])
	}
}

// carries says whether p repeats the stamp.
func carries(p []byte, stamp uint64) bool {
	return binary.BigEndian.Uint64(p) == stamp && bytes.Equal(p[8:], p[:len(p)-8])
}

// set writes count grains from first on, or zeros or unmaps them, on the disk and here.
func (m *model) set(t testing.TB, d image, what int, first, count int64) {
	t.Helper()
	off := first * grain
	n := min(count*grain, m.SizeBytes-off)
	var p []byte
	if what == 0 {
		p = make([]byte, count*grain)
	}
	for g := first; g < first+count; g++ {
		m.stamps[g] = 0
		if what == 0 {
			m.last++
			m.stamps[g] = m.last
			repeat(p[(g-first)*grain:][:grain], m.last)
		}
	}
	switch what {
	case 0:
		_, err := d.WriteAt(p[:n], off)
		must(t, err)
	case 1:
		must(t, d.Zero(off, n))
	default:
		must(t, d.Unmap(off, n))
	}
}

// random changes a range near one of the blocks whose entries lie at the edges of a page of the BAT.
func (m *model) random(t testing.TB, d image, r *rand.Rand) {
	t.Helper()
	first, count := m.pick(r)
	what := max(r.IntN(6)-3, 0)
	if count > 1000 && r.IntN(8) > 0 {
		what = 1 + r.IntN(2) // much content proves little more, and takes its time
	}
	m.set(t, d, what, first, count)
}

func (m *model) pick(r *rand.Rand) (first, count int64) {
	grains, perBlock := (m.SizeBytes+grain-1)/grain, m.block()/grain
	blocks := (grains + perBlock - 1) / perBlock
	edges := []int64{0, 1, 2, 511, 512, 513, 1023, 1024, 1025, blocks - 1, r.Int64N(blocks)}
	block := min(edges[r.IntN(len(edges))], blocks-1)
	first = min(block*perBlock+r.Int64N(perBlock), grains-1)
	limit := int64(40)
	switch r.IntN(10) {
	case 0: // a whole block and parts of its neighbours
		first, limit = max(block*perBlock-r.Int64N(3), 0), perBlock+5
		return first, min(limit, grains-first)
	case 1: // exactly a block
		return block * perBlock, min(perBlock, grains-block*perBlock)
	}
	return first, 1 + r.Int64N(min(limit, grains-first))
}

// check compares extents, and content.
func (m *model) check(t testing.TB, d image) {
	t.Helper()
	changed := slices.Sorted(maps.Keys(m.stamps))
	rest, next := changed, int64(0)
	for e, err := range d.Extents(0, m.SizeBytes) {
		must(t, err)
		if e.Offset != next || e.Length <= 0 {
			t.Fatalf("%+v where %d follows", e, next)
		}
		next = e.End()
		n, _ := slices.BinarySearch(rest, (e.End()+grain-1)/grain)
		m.checkExtent(t, d, e, rest[:n])
		rest = rest[n:]
	}
	if next != m.SizeBytes {
		t.Fatalf("the extents end at %d of %d", next, m.SizeBytes)
	}
	m.checkContent(t, d, changed)
}

// checkExtent holds a range against the grains of it that were changed.
func (m *model) checkExtent(t testing.TB, d image, e disk.Extent, changed []int64) {
	t.Helper()
	if e.Kind == disk.Absent {
		if _, err := d.ReadAt(make([]byte, 512), e.Offset); !errors.Is(err, disk.ErrAbsent) {
			t.Fatalf("reading %+v: %v", e, err)
		}
	}
	grains := (e.Length + grain - 1) / grain
	if n := int64(len(changed)); e.Kind == disk.Absent && n > 0 || m.layer && e.Kind != disk.Absent && n != grains {
		t.Fatalf("%d grains were changed in %+v", n, e)
	}
	for _, g := range changed {
		if m.stamps[g] != 0 && e.Kind != disk.Data {
			t.Fatalf("grain %d has the stamp %d and is in %+v", g, m.stamps[g], e)
		}
	}
}

// checkContent reads all that was changed, neighbours at once.
func (m *model) checkContent(t testing.TB, d image, changed []int64) {
	t.Helper()
	const atOnce = 64
	buffer := make([]byte, atOnce*grain)
	for len(changed) > 0 {
		first, n := changed[0], 1
		for n < min(atOnce, len(changed)) && changed[n] == first+int64(n) {
			n++
		}
		got := buffer[:min(int64(n)*grain, m.SizeBytes-first*grain)]
		_, err := d.ReadAt(got, first*grain)
		must(t, err)
		for _, g := range changed[:n] {
			part := got[(g-first)*grain:]
			part = part[:min(grain, len(part))]
			if !carries(part, m.stamps[g]) {
				t.Fatalf("grain %d has the stamp %d and reads %x", g, m.stamps[g], part[:8])
			}
		}
		changed = changed[n:]
	}
}
