package vhdx_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, is
// whole, holds what was flushed, and can be gone on with.
func TestCrashes(t *testing.T) {
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := play(t)
			states := 0
			options := durabletest.Options{Singles: 3, Random: 2}
			if name == "a log that goes round" {
				options = durabletest.Options{Singles: 1, Random: 1, Every: 128}
			}
			for crash := range s.Crashes(options) {
				for _, mark := range crash.Marks() {
					crash.Mark(mark)
				}
				err := s.m.checkCrash(crash)
				if err == nil && states%397 == 0 {
					err = s.m.askOracle(t, crash)
				}
				if err == nil && states%37 == 0 {
					err = s.m.goOn(crash)
				}
				if err != nil {
					t.Fatalf("%v\n%v", crash, err)
				}
				states++
			}
			t.Logf("%d states", states)
		})
	}
}

// TestEverySyncIsNeeded leaves out one sync after the other: each time there is a crash that breaks a promise, but
// for the two of each change of the header. What a header says lies in one sector, which the recorder never tears, so
// that either of them is enough.
func TestEverySyncIsNeeded(t *testing.T) {
	for name, o := range map[string]shape{"layer": smallLayer, "base": smallBase} {
		t.Run(name, func(t *testing.T) {
			var spared []int
			lost, syncs := 0, 1
			for ; lost < syncs; lost++ {
				var fails bool
				if fails, syncs = failsWithout(t, o, lost); !fails {
					spared = append(spared, lost+1)
				}
			}
			if want := []int{4, 5, 12, 13, 14, 15, 17, 18}; !slices.Equal(spared, want) || syncs != 19 {
				t.Errorf("of %d syncs %d can be left out, want %d", syncs, spared, want)
			}
		})
	}
}

// failsWithout plays a history, with a sync left out, and says whether a crash breaks a promise; and how many syncs
// there are.
func failsWithout(t *testing.T, o shape, lost int) (fails bool, syncs int) {
	recorder := durabletest.New()
	recorder.Drop(func(op durabletest.Op) bool {
		if op.Kind == durabletest.Sync {
			syncs++
		}
		return op.Kind == durabletest.Sync && syncs == lost+1
	})
	s := create(t, recorder, o)
	s.set(t, 0, 0, 2)
	s.flush(t)
	s.set(t, 0, 300, 2)
	s.set(t, 1, 0, 256)
	s.flush(t)
	s.set(t, 0, 700, 2)
	s.flush(t)
	s.reopen(t)
	s.set(t, 0, 1, 2)
	s.flush(t)
	return s.anyCrashFails(), syncs
}

func (s *scenario) anyCrashFails() bool {
	for crash := range s.Crashes(durabletest.Options{Singles: 8, Random: 24}) {
		if s.m.checkCrash(crash) != nil {
			return true
		}
	}
	return false
}

// checkCrash holds a state against what was promised before it: read with the log in memory, and after a replay.
func (m *model) checkCrash(crash *durabletest.Crash) error {
	p := promisesOf(crash)
	for _, mode := range []durable.Mode{durable.ReadOnly, durable.ReadWrite} {
		file, err := crash.Dir().Open("disk", mode)
		if err != nil {
			return p.unlessNew(err)
		}
		d, err := m.open(file, mode)
		if err != nil {
			return p.unlessNew(err)
		}
		if err := m.checkState(file, d, p); err != nil {
			return fmt.Errorf("mode %d: %w", mode, err)
		}
	}
	return nil
}

func (m *model) checkState(file durable.File, d image, p *promises) error {
	for finding, err := range vhdx.Check(file) {
		if err != nil || finding.Severity != disk.Leaked {
			return fmt.Errorf("check: %s, %w", finding.Message, err)
		}
	}
	if l, ok := d.(*vhdx.Layer); ok && !slices.Contains(p.parents, l.Parent().Name) {
		return fmt.Errorf("the parent is %q, of %q", l.Parent().Name, p.parents)
	}
	if len(p.identities) > 0 && !slices.Contains(p.identities, d.Identity()) {
		return fmt.Errorf("the identity is %v, of %v", d.Identity(), p.identities)
	}
	return p.check(m, d)
}

// goOn opens the state as after a restart and works on: all of it is there, and nothing gets in the way.
func (m *model) goOn(crash *durabletest.Crash) error {
	p := promisesOf(crash)
	file, err := crash.Dir().Open("disk", durable.ReadWrite)
	if err != nil {
		return p.unlessNew(err)
	}
	d, err := m.open(file, durable.ReadWrite)
	if err != nil {
		return p.unlessNew(err)
	}
	crash.Mark(created{})
	crash.Mark(reopened(d.Identity()))
	crash.Mark(anyParty{})
	written := make(added)
	grains := d.Size() / grain
	for i := range int64(8) {
		g, stamp := (i*7+i*i*5000)%grains, uint64(1)<<40+uint64(i)
		crash.Mark(change{stamp, g, 1})
		if _, err := d.WriteAt(content(stamp), g*grain); err != nil {
			return err
		}
		written[g] = stamp
	}
	if err := d.Flush(); err != nil {
		return err
	}
	crash.Mark(written)
	if err := d.Close(); err != nil {
		return err
	}
	for again := range crash.Crashes(durabletest.Options{Singles: 2, Random: 1, Every: 4}) {
		if err := m.checkCrash(again); err != nil {
			return fmt.Errorf("and again %v: %w", again, err)
		}
	}
	return nil
}
