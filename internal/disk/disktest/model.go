package disktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk"
)

// model is what a disk must hold: its bytes and, for a layer, which grains it holds at all.
type model struct {
	kind
	bytes   []byte
	present []bool
	random  *rand.Rand
}

func newModel(size int64, k kind) *model {
	m := &model{kind: k, bytes: make([]byte, size), random: rand.New(rand.NewPCG(uint64(size), 11))}
	if k.absent {
		m.present = make([]bool, (size+k.grain-1)/k.grain)
	}
	return m
}

// write fills the range with new bytes, zero ones among them, on the disk and here.
func (m *model) write(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	p := make([]byte, (n+7)/8*8)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], m.random.Uint64())
	}
	p = p[:n]
	if done, err := d.WriteAt(p, off); err != nil || int64(done) != n {
		t.Errorf("write %d bytes at %d: %d, %v", n, off, done, err)
	}
	copy(m.bytes[off:], p)
	m.hold(off, n)
}

func (m *model) zero(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	if err := d.Zero(off, n); err != nil {
		t.Errorf("zero %d bytes at %d: %v", n, off, err)
	}
	clear(m.bytes[off : off+n])
	m.hold(off, n)
}

func (m *model) unmap(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	if err := d.Unmap(off, n); err != nil {
		t.Errorf("unmap %d bytes at %d: %v", n, off, err)
	}
	clear(m.bytes[off : off+n])
	m.hold(off, n)
}

// change is one of the three.
func (m *model) change(t *testing.T, d disk.Disk, which int, off, n int64) {
	t.Helper()
	[]func(*testing.T, disk.Disk, int64, int64){m.write, m.zero, m.unmap}[which](t, d, off, n)
}

func (m *model) hold(off, n int64) {
	if !m.absent || n == 0 {
		return
	}
	for g := off / m.grain; g <= (off+n-1)/m.grain; g++ {
		m.present[g] = true
	}
}

// holds says whether the byte at off belongs to the disk, and where the grains that agree with it end.
func (m *model) holds(off int64) (present bool, end int64) {
	size := int64(len(m.bytes))
	if !m.absent {
		return true, size
	}
	g := off / m.grain
	last := g
	for last < int64(len(m.present)) && m.present[last] == m.present[g] {
		last++
	}
	return m.present[g], min(last*m.grain, size)
}

// pick chooses a range of grains in [0, within).
func (m *model) pick(random *rand.Rand, within int64) (off, n int64) {
	grains := (within + m.grain - 1) / m.grain
	first := random.Int64N(grains)
	count := 1 + random.Int64N(min(grains-first, 1+(200<<10)/m.grain))
	return first * m.grain, min(count*m.grain, within-first*m.grain)
}

// check compares the whole disk.
func (m *model) check(t *testing.T, d disk.Disk) {
	t.Helper()
	m.checkRange(t, d, 0, int64(len(m.bytes)))
}

// checkRange compares content and extents of a range.
func (m *model) checkRange(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	for at := off; at < off+n; {
		present, end := m.holds(at)
		end = min(end, off+n)
		p := make([]byte, end-at)
		done, err := d.ReadAt(p, at)
		switch {
		case !present && !errors.Is(err, disk.ErrAbsent):
			t.Errorf("reading [%d, %d), which is absent: %v", at, end, err)
		case present && (err != nil || done != len(p)):
			t.Errorf("reading [%d, %d): %d bytes, %v", at, end, done, err)
		case present && !bytes.Equal(p, m.bytes[at:end]):
			t.Errorf("[%d, %d) differs at %d", at, end, at+firstDifference(p, m.bytes[at:end]))
		}
		at = end
	}
	m.checkAcross(t, d, off, n)
	m.checkExtents(t, d, off, n)
}

// checkAcross reads the whole range at once: it is refused when any of it is absent.
func (m *model) checkAcross(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	if n == 0 {
		return
	}
	present, end := m.holds(off)
	whole := present && end >= off+n
	if _, err := d.ReadAt(make([]byte, n), off); whole != (err == nil) || (!whole && !errors.Is(err, disk.ErrAbsent)) {
		t.Errorf("reading [%d, %d), all present: %t: %v", off, off+n, whole, err)
	}
}

// checkExtents asks that the extents cover the range and say nothing that is not so.
func (m *model) checkExtents(t *testing.T, d disk.Disk, off, n int64) {
	t.Helper()
	next := off
	for e, err := range d.Extents(off, n) {
		if err != nil {
			t.Errorf("extents of [%d, %d): %v", off, off+n, err)
			return
		}
		if e.Offset != next || e.Length <= 0 || e.End() > off+n {
			t.Errorf("extents of [%d, %d): %+v where %d follows", off, off+n, e, next)
			return
		}
		m.checkExtent(t, e)
		next = e.End()
	}
	if next != off+n {
		t.Errorf("extents of [%d, %d) end at %d", off, off+n, next)
	}
}

func (m *model) checkExtent(t *testing.T, e disk.Extent) {
	t.Helper()
	present, end := m.holds(e.Offset)
	if end < e.End() || present == (e.Kind == disk.Absent) {
		t.Errorf("%+v: of kind absent or not, against the model: held %t up to %d", e, present, end)
	}
	switch e.Kind {
	case disk.Data, disk.Absent:
	case disk.Zero, disk.Unmapped:
		if at := firstNonZero(m.bytes[e.Offset:e.End()]); at >= 0 {
			t.Errorf("%+v reads as zeros, but there is data at %d", e, e.Offset+at)
		}
	default:
		t.Errorf("%+v has no such kind", e)
	}
}

// firstDifference is where two slices of one length differ first; -1 when they do not.
func firstDifference(a, b []byte) int64 {
	for at := 0; at < len(a); at += len(zeros) {
		end := min(at+len(zeros), len(a))
		if bytes.Equal(a[at:end], b[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if a[i] != b[i] {
				return int64(i)
			}
		}
	}
	return -1
}

var zeros [4096]byte

// firstNonZero is where the first byte lies that is not zero; -1 when all are.
func firstNonZero(p []byte) int64 {
	for at := 0; at < len(p); at += len(zeros) {
		part := p[at:min(at+len(zeros), len(p))]
		if i := firstDifference(part, zeros[:len(part)]); i >= 0 {
			return int64(at) + i
		}
	}
	return -1
}
