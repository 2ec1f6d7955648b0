package vhdx_test

import (
	"maps"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// What a crash's marks say: a flush promised stamps; from here on a change, a parent or an identity may be there;
// from here on the file exists, has this parent, or this identity.
type (
	flushed map[int64]uint64
	change  struct {
		stamp        uint64
		first, count int64
	}
	added    flushed // beside what was promised before
	created  struct{}
	sealing  string
	sealed   string
	naming   disk.Identity
	named    disk.Identity
	anyParty struct{} // a change of the disk may have given it any identity
)

// scenario is a history whose every operation is recorded.
type scenario struct {
	*durabletest.Recorder
	m *model
	d image
}

func start(t *testing.T, s shape) *scenario {
	t.Helper()
	return create(t, durabletest.New(), s)
}

func create(t *testing.T, recorder *durabletest.Recorder, s shape) *scenario {
	t.Helper()
	file, err := recorder.Dir().Create("disk")
	must(t, err)
	d, err := s.create(file)
	must(t, err, recorder.Dir().Sync("."))
	recorder.Mark(created{})
	d.LimitPages(8)
	return &scenario{Recorder: recorder, m: newModel(s), d: d}
}

// set changes a range; what says how, as in model.set.
func (s *scenario) set(t *testing.T, what int, first, count int64) {
	t.Helper()
	s.Mark(anyParty{})
	if what == 0 {
		for g := range count {
			s.Mark(change{s.m.last + 1 + uint64(g), first + g, 1})
		}
	} else {
		s.Mark(change{0, first, count})
	}
	s.m.set(t, s.d, what, first, count)
}

func (s *scenario) flush(t *testing.T) {
	t.Helper()
	must(t, s.d.Flush())
	s.Mark(flushed(maps.Clone(s.m.stamps)))
}

func (s *scenario) reopen(t *testing.T) {
	t.Helper()
	id := s.d.Identity()
	must(t, s.d.Close())
	s.Mark(reopened(id))
	s.Mark(flushed(maps.Clone(s.m.stamps)))
	file, err := s.Dir().Open("disk", durable.ReadWrite)
	must(t, err)
	s.d, err = s.m.open(file, durable.ReadWrite)
	must(t, err)
}

func (s *scenario) seal(t *testing.T, name string) {
	t.Helper()
	s.Mark(sealing(name))
	must(t, s.d.(*vhdx.Layer).Seal(disk.Parent{Name: name, Path: "/x/" + name, Format: "vhdx", Identity: disk.Identity{1}}))
	s.Mark(flushed(maps.Clone(s.m.stamps)))
	s.Mark(sealed(name))
}

func (s *scenario) setIdentity(t *testing.T, id disk.Identity) {
	t.Helper()
	s.Mark(naming(id))
	must(t, s.d.SetIdentity(id))
	s.Mark(flushed(maps.Clone(s.m.stamps)))
	s.Mark(named(id))
}

var (
	smallLayer = shape{vhdx.Options{SizeBytes: 40*mib + 1024, BlockBytes: mib}, true}
	smallBase  = shape{vhdx.Options{SizeBytes: 600 * mib, BlockBytes: mib}, false}
)

// scenarios are short, for each is crashed everywhere. 256 grains are a block.
var scenarios = map[string]func(t *testing.T) *scenario{
	"a layer, sealed twice": func(t *testing.T) *scenario {
		s := start(t, smallLayer)
		s.set(t, 0, 0, 3)
		s.set(t, 0, 300, 2)
		s.flush(t)
		s.set(t, 0, 40, 2)
		s.seal(t, "first.vhdx")
		s.reopen(t)
		s.seal(t, "another.vhdx")
		return s
	},
	"a layer, zeroed and unmapped, its space used again": func(t *testing.T) *scenario {
		s := start(t, smallLayer)
		s.set(t, 0, 250, 10)
		s.flush(t)
		s.set(t, 2, 0, 256)
		s.set(t, 1, 256, 20)
		s.flush(t)
		s.set(t, 0, 600, 3)
		s.set(t, 0, 17, 1)
		s.flush(t)
		s.set(t, 1, 256, 256)
		s.flush(t)
		return s
	},
	"a base, over the edge of a page of the BAT, its space used again": func(t *testing.T) *scenario {
		s := start(t, smallBase)
		s.set(t, 0, 512*256-2, 4)
		s.set(t, 0, 3, 2)
		s.flush(t)
		s.set(t, 2, 512*256-256, 256)
		s.flush(t)
		s.set(t, 0, 513*256, 2)
		s.flush(t)
		s.reopen(t)
		s.set(t, 0, 513*256+1, 2)
		return s
	},
	"a fixed base, with an identity that is given": func(t *testing.T) *scenario {
		s := start(t, shape{vhdx.Options{SizeBytes: 5 * mib, BlockBytes: mib, Fixed: true}, false})
		s.setIdentity(t, disk.Identity{7})
		s.set(t, 0, 3, 2)
		s.set(t, 2, 256, 300)
		s.flush(t)
		s.reopen(t)
		s.set(t, 0, 4, 1)
		s.setIdentity(t, disk.Identity{8})
		return s
	},
	"a log that goes round": goRound,
	"random layer":          random(shape{vhdx.Options{SizeBytes: 3000*mib + 512, BlockBytes: mib}, true}),
	"random base":           random(smallBase),
}

// goRound flushes more pages than an entry has, so often that the ring is used more than once.
func goRound(t *testing.T) *scenario {
	s := start(t, shape{vhdx.Options{SizeBytes: 44 << 30, BlockBytes: mib}, false})
	s.d.LimitPages(4096)
	for round := range int64(3) {
		for page := range int64(88) {
			s.set(t, 0, (page*512+round)*256, 1)
		}
		s.flush(t)
	}
	return s
}

func random(o shape) func(t *testing.T) *scenario {
	return func(t *testing.T) *scenario {
		s := start(t, o)
		r := rand.New(rand.NewPCG(1, 2))
		for range 24 {
			first := min(r.Int64N(9)*70000, o.SizeBytes/grain-300) + r.Int64N(64)
			s.set(t, max(r.IntN(5)-2, 0), first, 1+r.Int64N(20))
			if r.IntN(4) == 0 {
				s.flush(t)
			}
		}
		s.flush(t)
		return s
	}
}
