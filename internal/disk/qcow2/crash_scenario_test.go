package qcow2_test

import (
	"maps"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// What a crash's marks say: a flush promised stamps; from here on a change, or a parent, may be there; and from
// here on the overlay exists, or has this parent. An overlay with a parent holds what was written before.
type (
	flushed map[int64]uint64
	change  struct {
		stamp        uint64
		first, count int64
	}
	added   flushed // beside what was promised before
	created struct{}
	sealing struct {
		parent string
		stamps flushed
	}
	sealed string
)

// scenario is a history whose every operation is recorded.
type scenario struct {
	*durabletest.Recorder
	m *model
	o *qcow2.Overlay
}

func start(t *testing.T, size int64) *scenario {
	t.Helper()
	s := &scenario{Recorder: durabletest.New(), m: newModel(size)}
	return s.create(t)
}

func (s *scenario) create(t *testing.T) *scenario {
	t.Helper()
	file, err := s.Dir().Create("overlay")
	must(t, err)
	s.o, err = qcow2.Create(file, s.m.size, smallCache)
	must(t, err)
	must(t, s.Dir().Sync("."))
	s.Mark(created{})
	return s
}

// set changes a range; what says how, as in model.set.
func (s *scenario) set(t *testing.T, what int, first, count int64) {
	t.Helper()
	if what == 0 {
		for g := range count {
			s.Mark(change{s.m.last + 1 + uint64(g), first + g, 1})
		}
	} else {
		s.Mark(change{0, first, count})
	}
	s.m.set(t, s.o, what, first, count)
}

func (s *scenario) flush(t *testing.T) {
	t.Helper()
	must(t, s.o.Flush())
	s.Mark(flushed(maps.Clone(s.m.stamps)))
}

func (s *scenario) seal(t *testing.T, parent string) {
	t.Helper()
	s.Mark(sealing{parent, maps.Clone(s.m.stamps)})
	must(t, s.o.Seal(disk.Parent{Name: parent, Format: "raw"}))
	s.Mark(flushed(maps.Clone(s.m.stamps)))
	s.Mark(sealed(parent))
}

// atTheEdge makes the file as long as one refcount block counts, less back clusters.
func (s *scenario) atTheEdge(t *testing.T, back int64) {
	t.Helper()
	file, err := s.Dir().Open("overlay", durable.ReadWrite)
	must(t, err)
	must(t, file.Truncate((65536-back)*cluster))
	s.o, err = qcow2.Open(file, durable.ReadWrite, smallCache)
	must(t, err)
}

// scenarios are short, for each is crashed everywhere.
var scenarios = map[string]func(t *testing.T) *scenario{
	"new, sealed twice": func(t *testing.T) *scenario {
		s := start(t, 3<<30+512)
		s.set(t, 0, 0, 3)
		s.set(t, 0, 1<<18, 2)
		s.flush(t)
		s.set(t, 0, 40, 2)
		s.seal(t, "first parent")
		s.set(t, 1, 1, 1)
		s.seal(t, "another")
		return s
	},
	"written in place, zeroed and unmapped": func(t *testing.T) *scenario {
		s := start(t, 2<<30)
		s.set(t, 0, 0, 40)
		s.flush(t)
		s.set(t, 0, 2, 2)
		s.set(t, 1, 8, 2)
		s.set(t, 2, 16, 3)
		s.set(t, 0, 17, 1)
		s.set(t, 0, 60, 9)
		s.flush(t)
		s.set(t, 2, 0, 30)
		s.set(t, 0, 8, 2)
		s.flush(t)
		return s
	},
	"over the edge of a refcount block": func(t *testing.T) *scenario {
		s := start(t, 9<<30)
		s.set(t, 0, 0, 2)
		s.flush(t)
		s.atTheEdge(t, 2)
		s.set(t, 0, 100, 2)
		s.set(t, 0, 1<<19, 2)
		s.flush(t)
		s.set(t, 0, 1<<20, 2)
		s.flush(t)
		return s
	},
	"random, seed 1": random(1),
	"random, seed 2": random(2),
}

func random(seed uint64) func(t *testing.T) *scenario {
	return func(t *testing.T) *scenario {
		s := start(t, 5<<30+1024)
		r := rand.New(rand.NewPCG(seed, 2))
		for range 24 {
			s.set(t, max(r.IntN(5)-2, 0), r.Int64N(9)*150000+r.Int64N(64), 1+r.Int64N(20))
			if r.IntN(4) == 0 {
				s.flush(t)
			}
		}
		return s
	}
}
