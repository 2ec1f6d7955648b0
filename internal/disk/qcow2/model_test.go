package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
)

const grain = 4096

// model is what an overlay must hold: by subcluster the stamp that its bytes repeat, 0 for zeros. What is missing
// is absent.
type model struct {
	size   int64
	stamps map[int64]uint64
	last   uint64
}

func newModel(size int64) *model { return &model{size: size, stamps: make(map[int64]uint64)} }

// content is a subcluster that carries the stamp; every sector of it can be told from another stamp's.
func content(stamp uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, stamp), grain/8)
}

// set writes count subclusters from first on, or zeros or unmaps them, on the overlay and here.
func (m *model) set(t testing.TB, o *qcow2.Overlay, what int, first, count int64) {
	t.Helper()
	off, n := first*grain, min(count*grain, m.size-first*grain)
	var p []byte
	for g := first; g < first+count; g++ {
		m.stamps[g] = 0
		if what == 0 {
			m.last++
			m.stamps[g] = m.last
			p = append(p, content(m.last)...)
		}
	}
	switch what {
	case 0:
		_, err := o.WriteAt(p[:n], off)
		must(t, err)
	case 1:
		must(t, o.Zero(off, n))
	default:
		must(t, o.Unmap(off, n))
	}
}

// random changes a range: within a few windows of the disk, so that ranges meet, and mostly short.
func (m *model) random(t testing.TB, o *qcow2.Overlay, r *rand.Rand) {
	t.Helper()
	first, count := m.pick(r)
	m.set(t, o, max(r.IntN(6)-3, 0), first, count)
}

func (m *model) pick(r *rand.Rand) (first, count int64) {
	grains := (m.size + grain - 1) / grain
	const windows, window = 24, 96
	first = r.Int64N(windows)*(grains/windows) + r.Int64N(window)
	if first >= grains || r.IntN(16) == 0 {
		first = grains - 1 - r.Int64N(min(grains, window))
	}
	limit := int64(40)
	if r.IntN(20) == 0 {
		limit = 600
	}
	return first, 1 + r.Int64N(min(limit, grains-first))
}

// check compares extents, and content extent by extent.
func (m *model) check(t testing.TB, o *qcow2.Overlay) {
	t.Helper()
	next, data, held := int64(0), int64(0), int64(0)
	for e, err := range o.Extents(0, m.size) {
		must(t, err)
		if e.Offset != next || e.Length <= 0 {
			t.Fatalf("%+v where %d follows", e, next)
		}
		next = e.End()
		m.checkExtent(t, o, e)
		if e.Kind == disk.Data {
			data += e.Length
		}
		if e.Kind != disk.Absent {
			held += (e.Length + grain - 1) / grain
		}
	}
	if next != m.size {
		t.Fatalf("the extents end at %d of %d", next, m.size)
	}
	if counted, err := o.DataBytes(); err != nil || counted != data {
		t.Fatalf("DataBytes %d, %v; the extents have %d", counted, err, data)
	}
	if held != int64(len(m.stamps)) {
		t.Fatalf("%d subclusters are held, want %d", held, len(m.stamps))
	}
}

// carries says whether p repeats the stamp.
func carries(p []byte, stamp uint64) bool {
	return binary.BigEndian.Uint64(p) == stamp && bytes.Equal(p[8:], p[:len(p)-8])
}

func kindOf(stamp uint64) disk.Kind {
	if stamp == 0 {
		return disk.Zero
	}
	return disk.Data
}

// checkExtent holds the kind and, where there is one, the content of a range against the model.
func (m *model) checkExtent(t testing.TB, o *qcow2.Overlay, e disk.Extent) {
	t.Helper()
	if e.Kind == disk.Absent {
		if _, err := o.ReadAt(make([]byte, min(e.Length, 512)), e.Offset); !errors.Is(err, disk.ErrAbsent) {
			t.Fatalf("reading %+v: %v", e, err)
		}
		return
	}
	got := make([]byte, e.Length)
	if n, err := o.ReadAt(got, e.Offset); err != nil || n != len(got) {
		t.Fatalf("reading %+v: %d bytes, %v", e, n, err)
	}
	for at := 0; at < len(got); at += grain {
		g := (e.Offset + int64(at)) / grain
		stamp, present := m.stamps[g]
		part := got[at:min(at+grain, len(got))]
		if !present || kindOf(stamp) != e.Kind || !carries(part, stamp) {
			t.Fatalf("subcluster %d of %+v: stamp %d (present %t), got %x…", g, e, stamp, present, part[:8])
		}
	}
}
