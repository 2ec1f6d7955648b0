package chain

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"vmreplica/internal/disk"
)

const unit = 4 << 10

// memoryLayer is a layer in memory; with whole set it is a base, in which nothing is absent.
type memoryLayer struct {
	mu     sync.RWMutex
	bytes  []byte
	kinds  []disk.Kind // of each 4 KiB
	whole  bool
	closed atomic.Bool
	reads  atomic.Int64
}

func newMemoryLayer(size int64, whole bool) *memoryLayer {
	m := &memoryLayer{bytes: make([]byte, size), kinds: make([]disk.Kind, (size+unit-1)/unit), whole: whole}
	for i := range m.kinds {
		m.kinds[i] = disk.Absent
		if whole {
			m.kinds[i] = disk.Unmapped
		}
	}
	return m
}

func (m *memoryLayer) Size() int64                   { return int64(len(m.bytes)) }
func (m *memoryLayer) LogicalSectorSize() int        { return 512 }
func (m *memoryLayer) Flush() error                  { return nil }
func (m *memoryLayer) AllocatedBytes() (int64, bool) { return 0, false }
func (m *memoryLayer) Seal(disk.Parent) error        { return nil }

func (m *memoryLayer) Close() error {
	if m.closed.Swap(true) {
		return errors.New("closed twice")
	}
	return nil
}

func (m *memoryLayer) ReadAt(p []byte, off int64) (int, error) {
	m.reads.Add(1)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed.Load() {
		return 0, errors.New("read after close")
	}
	for at := off / unit; at*unit < off+int64(len(p)); at++ {
		if m.kinds[at] == disk.Absent {
			return 0, disk.ErrAbsent
		}
	}
	return copy(p, m.bytes[off:]), nil
}

func (m *memoryLayer) set(off, n int64, kind disk.Kind, fill func([]byte)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fill(m.bytes[off : off+n])
	for at := off / unit; at*unit < off+n; at++ {
		m.kinds[at] = kind
	}
}

func (m *memoryLayer) WriteAt(p []byte, off int64) (int, error) {
	m.set(off, int64(len(p)), disk.Data, func(b []byte) { copy(b, p) })
	return len(p), nil
}

func (m *memoryLayer) Zero(off, n int64) error {
	m.set(off, n, disk.Zero, func(b []byte) { clear(b) })
	return nil
}

func (m *memoryLayer) Unmap(off, n int64) error {
	m.set(off, n, disk.Unmapped, func(b []byte) { clear(b) })
	return nil
}

func (m *memoryLayer) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for end := off + n; off < end; {
			next := min((off/unit+1)*unit, end)
			m.mu.RLock()
			kind := m.kinds[off/unit]
			m.mu.RUnlock()
			if !yield(disk.Extent{Offset: off, Length: next - off, Kind: kind}, nil) {
				return
			}
			off = next
		}
	}
}

// randomWrite changes the layer and the model alike.
func randomWrite(rng *rand.Rand, to *memoryLayer, model []byte) {
	size := int64(len(model))
	start := rng.Int64N((size+unit-1)/unit) * unit
	end := min(start+unit*(1+rng.Int64N(40)), size)
	switch rng.IntN(4) {
	case 0:
		to.Zero(start, end-start)
		clear(model[start:end])
	case 1:
		to.Unmap(start, end-start)
		clear(model[start:end])
	default:
		data := make([]byte, end-start)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		to.WriteAt(data, start)
		copy(model[start:], data)
	}
}

func TestTheViewIsWhatTheModelHolds(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		size := 512 * (1 + rng.Int64N(4000))
		model := make([]byte, size)
		base := newMemoryLayer(size, true)
		view := newView(base, nil)
		levels := []*memoryLayer{base}
		for range 1 + rng.IntN(12) {
			if rng.IntN(3) == 0 && len(levels) < 4 {
				layer := newMemoryLayer(size, false)
				levels = append(levels, layer)
				view.push(layer)
			}
			for range rng.IntN(4) {
				randomWrite(rng, levels[len(levels)-1], model)
			}
			checkView(t, rng, view, levels, model)
			if rng.IntN(4) == 0 && len(levels) > 1 {
				mergeDown(levels[1], base)
				if err := view.remove(0); err != nil || !levels[1].closed.Load() {
					t.Fatalf("seed %d: the merged layer was not closed: %v", seed, err)
				}
				levels = slices.Delete(levels, 1, 2)
				checkView(t, rng, view, levels, model)
			}
		}
	}
}

func mergeDown(layer, base *memoryLayer) {
	for e := range layer.Extents(0, layer.Size()) {
		switch e.Kind {
		case disk.Data:
			base.WriteAt(layer.bytes[e.Offset:e.End()], e.Offset)
		case disk.Zero:
			base.Zero(e.Offset, e.Length)
		case disk.Unmapped:
			base.Unmap(e.Offset, e.Length)
		}
	}
}

func checkView(t *testing.T, rng *rand.Rand, view *View, levels []*memoryLayer, model []byte) {
	t.Helper()
	size := int64(len(model))
	for range 4 {
		off := rng.Int64N(size)
		n := rng.Int64N(size - off + 1)
		got := make([]byte, n)
		if read, err := view.ReadAt(got, off); err != nil || int64(read) != n {
			t.Fatalf("read of %d bytes at %d of %d: %d, %v", n, off, size, read, err)
		}
		if !bytes.Equal(got, model[off:off+n]) {
			t.Fatalf("%d bytes at %d differ from the model", n, off)
		}
		checkExtents(t, view, levels, off, n)
	}
}

// checkExtents compares with the topmost level that holds each 4 KiB.
func checkExtents(t *testing.T, view *View, levels []*memoryLayer, off, n int64) {
	t.Helper()
	next := off
	for e, err := range view.Extents(off, n) {
		if err != nil || e.Offset != next || e.Length <= 0 || e.End() > off+n {
			t.Fatalf("extent %+v after %d, %v", e, next, err)
		}
		for at := e.Offset / unit; at*unit < e.End(); at++ {
			want := disk.Absent
			for i := len(levels) - 1; want == disk.Absent; i-- {
				want = levels[i].kinds[at]
			}
			if e.Kind != want {
				t.Fatalf("kind %d at %d, want %d", e.Kind, at*unit, want)
			}
		}
		next = e.End()
	}
	if next != off+n {
		t.Fatalf("extents end at %d instead of %d", next, off+n)
	}
}

func TestReadsOutsideTheDiskAreRefused(t *testing.T) {
	view := newView(newMemoryLayer(64<<10, true), []disk.Layer{newMemoryLayer(64<<10, false)})
	for _, off := range []int64{-1, 64<<10 - 5, 1 << 62} {
		if _, err := view.ReadAt(make([]byte, 6), off); !errors.Is(err, disk.ErrRange) {
			t.Errorf("read at %d answered %v", off, err)
		}
	}
}

func TestABaseAloneIsReadInOnePiece(t *testing.T) {
	base := newMemoryLayer(1<<20, true)
	if _, err := newView(base, nil).ReadAt(make([]byte, 1<<20), 0); err != nil || base.reads.Load() != 1 {
		t.Errorf("%d reads, %v", base.reads.Load(), err)
	}
	layered := newView(base, []disk.Layer{newMemoryLayer(1<<20, false), newMemoryLayer(1<<20, false)})
	if _, err := layered.ReadAt(make([]byte, 1<<20), 0); err != nil || base.reads.Load() != 2 {
		t.Errorf("%d reads of the base through empty layers, %v", base.reads.Load()-1, err)
	}
}

func TestALayerInUseIsClosedByItsLastReader(t *testing.T) {
	layer := newMemoryLayer(64<<10, false)
	view := newView(newMemoryLayer(64<<10, true), []disk.Layer{layer})
	layer.Zero(0, 64<<10)
	for range view.Extents(0, 64<<10) {
		if err := view.remove(0); err != nil {
			t.Fatal(err)
		}
		if layer.closed.Load() {
			t.Fatal("the layer was closed under its reader")
		}
		break
	}
	if !layer.closed.Load() {
		t.Fatal("nobody closed the layer")
	}
}

// TestReadersBesideAWriterAndAMerge reads blocks whose bytes are all alike while they are written, layers come
// and merged ones go: a reader sees one whole 4 KiB version or another, never anything else.
func TestReadersBesideAWriterAndAMerge(t *testing.T) {
	const size = 256 << 10
	base := newMemoryLayer(size, true)
	view := newView(base, nil)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(rand.Uint64(), 3))
			buffer := make([]byte, unit)
			var last [size / unit]byte
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := rng.Int64N(size / unit)
				if _, err := view.ReadAt(buffer, at*unit); err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if bytes.Count(buffer, buffer[:1]) != unit || buffer[0] < last[at] {
					t.Errorf("block %d holds a mixture, or version %d after %d", at, buffer[0], last[at])
					return
				}
				last[at] = buffer[0]
				for _, err := range view.Extents(0, size) {
					if err != nil {
						t.Errorf("extents: %v", err)
						return
					}
				}
			}
		})
	}
	var below *memoryLayer
	for version := byte(1); version < 60; version++ {
		top := newMemoryLayer(size, false)
		view.push(top)
		for at := int64(0); at < size/unit; at += 1 + int64(version)%3 {
			top.WriteAt(bytes.Repeat([]byte{version}, unit), at*unit)
		}
		if below != nil {
			mergeDown(below, base)
			if err := view.remove(0); err != nil {
				t.Fatal(err)
			}
		}
		below = top
	}
	close(stop)
	readers.Wait()
}
