package stack_test

import (
	"bytes"
	"errors"
	"iter"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/stack"
)

const grain = 512

// part is a disk of sectors in memory: each has a kind and, when it is data, content.
type part struct {
	kinds   []disk.Kind
	content []byte
}

func newPart(random *rand.Rand, sectors int, kinds ...disk.Kind) *part {
	p := &part{kinds: make([]disk.Kind, sectors), content: make([]byte, sectors*grain)}
	for i := range p.kinds {
		p.kinds[i] = kinds[random.IntN(len(kinds))]
		if p.kinds[i] == disk.Data {
			for j := range grain {
				p.content[i*grain+j] = byte(random.UintN(255) + 1)
			}
		}
	}
	return p
}

func (p *part) Size() int64            { return int64(len(p.content)) }
func (p *part) LogicalSectorSize() int { return grain }

func (p *part) ReadAt(b []byte, off int64) (int, error) {
	if err := disk.CheckRange(p.Size(), off, int64(len(b))); err != nil {
		return 0, err
	}
	for at := off; at < off+int64(len(b)); at++ {
		if p.kinds[at/grain] == disk.Absent {
			return 0, disk.ErrAbsent
		}
	}
	return copy(b, p.content[off:]), nil
}

// Extents yields a sector at a time.
func (p *part) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(p.Size(), off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		for at, end := off, off+n; at < end; {
			next := min((at/grain+1)*grain, end)
			if !yield(disk.Extent{Offset: at, Length: next - at, Kind: p.kinds[at/grain]}, nil) {
				return
			}
			at = next
		}
	}
}

// seen is what a reader of parts, the lowest first, must find in a sector of the highest.
func seen(parts []*part, sector int) (disk.Kind, []byte) {
	for i := len(parts) - 1; i >= 0; i-- {
		switch {
		case sector >= len(parts[i].kinds):
			return disk.Unmapped, make([]byte, grain)
		case parts[i].kinds[sector] != disk.Absent:
			return parts[i].kinds[sector], parts[i].content[sector*grain : (sector+1)*grain]
		}
	}
	return 0, nil
}

// TestWhatIsSeenThroughAStack stacks parts of random sizes, shorter and longer than what is above them.
func TestWhatIsSeenThroughAStack(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		parts := []*part{newPart(random, 1+random.IntN(40), disk.Data, disk.Zero, disk.Unmapped)}
		var layers []disk.Reader
		for range random.IntN(4) {
			layer := newPart(random, 1+random.IntN(40), disk.Data, disk.Zero, disk.Absent, disk.Absent)
			parts, layers = append(parts, layer), append(layers, layer)
		}
		s := stack.New(parts[0], layers...)
		sectors := len(parts[len(parts)-1].kinds)
		var want []byte
		for i := range sectors {
			_, content := seen(parts, i)
			want = append(want, content...)
		}
		if s.Size() != int64(len(want)) || s.LogicalSectorSize() != grain {
			t.Fatalf("seed %d: %d bytes", seed, s.Size())
		}
		for range 20 {
			off := random.Int64N(s.Size())
			n := random.Int64N(s.Size()-off) + 1
			got := bytes.Repeat([]byte{0xEE}, int(n))
			if _, err := s.ReadAt(got, off); err != nil || !bytes.Equal(got, want[off:off+n]) {
				t.Fatalf("seed %d: %d bytes at %d: %v", seed, n, off, err)
			}
			checkExtents(t, s, parts, off, n)
		}
	}
}

func checkExtents(t *testing.T, s *stack.Stack, parts []*part, off, n int64) {
	t.Helper()
	at, last := off, disk.Kind(0)
	for e, err := range s.Extents(off, n) {
		if err != nil || e.Offset != at || e.Length <= 0 || e.Kind == last {
			t.Fatalf("extent %+v at %d after kind %d: %v", e, at, last, err)
		}
		for sector := e.Offset / grain; sector*grain < e.End(); sector++ {
			if kind, _ := seen(parts, int(sector)); kind != e.Kind {
				t.Fatalf("sector %d is %d in %+v, want %d", sector, e.Kind, e, kind)
			}
		}
		at, last = e.End(), e.Kind
	}
	if at != off+n {
		t.Fatalf("extents end at %d, not %d", at, off+n)
	}
}

func TestRangesOutsideAreRefused(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	base, top := newPart(random, 8, disk.Data), newPart(random, 4, disk.Absent)
	s := stack.New(base, top)
	if _, err := s.ReadAt(make([]byte, grain), 4*grain); !errors.Is(err, disk.ErrRange) {
		t.Errorf("a read behind the top's end: %v", err)
	}
	for e, err := range s.Extents(0, 5*grain) {
		if !errors.Is(err, disk.ErrRange) {
			t.Errorf("extents behind the top's end: %+v, %v", e, err)
		}
	}
}

func TestAnAbsentRangeWithNothingBelowIsAnError(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	s := stack.New(newPart(random, 4, disk.Absent))
	if _, err := s.ReadAt(make([]byte, grain), 0); !errors.Is(err, disk.ErrAbsent) {
		t.Errorf("reading it: %v", err)
	}
	var found error
	for _, err := range s.Extents(0, s.Size()) {
		found = err
	}
	if !errors.Is(found, disk.ErrAbsent) {
		t.Errorf("its extents end with %v", found)
	}
}

func TestExtentsMayBeLeftEarly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	s := stack.New(newPart(random, 40, disk.Data, disk.Zero), newPart(random, 40, disk.Absent, disk.Zero))
	for range s.Extents(0, s.Size()) {
		break
	}
}
