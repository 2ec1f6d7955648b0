package qcow2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, holds
// what was flushed, has leaks at worst, and can be gone on with.
func TestCrashes(t *testing.T) {
	oneGoroutine(t)
	for name, play := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := play(t)
			states := 0
			for crash := range s.Crashes(durabletest.Options{Singles: 12, Random: 4}) {
				err := checkCrash(crash)
				if err == nil && states%97 == 0 {
					err = askQEMU(t, crash)
				}
				if err == nil && states%37 == 0 {
					err = goOn(crash)
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

// TestEverySyncIsNeeded leaves out one sync after the other: each time there is a crash that breaks a promise.
func TestEverySyncIsNeeded(t *testing.T) {
	oneGoroutine(t)
	for name, play := range map[string]func(*testing.T, *scenario){
		"create and seal": func(t *testing.T, s *scenario) {
			s.set(t, 0, 0, 2)
			s.seal(t, "parent")
		},
		"over an edge": func(t *testing.T, s *scenario) {
			s.atTheEdge(t, 1)
			s.set(t, 0, 0, 2)
			s.flush(t)
		},
	} {
		t.Run(name, func(t *testing.T) { dropEverySync(t, play) })
	}
}

func dropEverySync(t *testing.T, play func(*testing.T, *scenario)) {
	for lost, done := 0, false; !done; lost++ {
		s := &scenario{Recorder: durabletest.New(), m: newModel(9 << 30)}
		seen := 0
		s.Drop(func(op durabletest.Op) bool {
			if op.Kind == durabletest.Sync {
				seen++
			}
			return op.Kind == durabletest.Sync && seen == lost+1
		})
		play(t, s.create(t))
		done = seen <= lost
		if !done && !anyCrashFails(s) {
			t.Errorf("sync %d of %d can be left out", lost+1, seen)
		}
	}
}

func anyCrashFails(s *scenario) bool {
	for crash := range s.Crashes(durabletest.Options{}) {
		if checkCrash(crash) != nil {
			return true
		}
	}
	return false
}

// checkCrash holds a state against what was promised before it.
func checkCrash(crash *durabletest.Crash) error {
	p := promisesOf(crash)
	file, err := crash.Dir().Open("overlay", durable.ReadOnly)
	if err != nil {
		return p.unlessNew(err)
	}
	o, err := qcow2.Open(file, durable.ReadOnly)
	if err != nil {
		return p.unlessNew(err)
	}
	if err := checkStructure(file); err != nil {
		return err
	}
	name, _ := o.Parent()
	if !slices.Contains(p.parents, name) {
		return fmt.Errorf("the parent is %q, of %q", name, p.parents)
	}
	if name != "" && name == p.sealing.parent {
		p.flushed = p.sealing.stamps
	}
	return p.check(o)
}

// promises is what a state must and may hold.
type promises struct {
	created bool
	flushed flushed
	// may holds the stamps written after the flush, by subcluster.
	may map[int64][]uint64
	// parents are those that the header may name, sealing the last of them while it was not yet promised.
	parents []string
	sealing sealing
}

func promisesOf(crash *durabletest.Crash) *promises {
	p := &promises{may: make(map[int64][]uint64), parents: []string{""}}
	for _, mark := range crash.Marks() {
		switch mark := mark.(type) {
		case created:
			p.created = true
		case flushed:
			p.flushed = mark
			clear(p.may)
		case added:
			p.flushed = maps.Clone(p.flushed)
			if p.flushed == nil {
				p.flushed = make(flushed)
			}
			maps.Copy(p.flushed, mark)
		case change:
			for g := mark.first; g < mark.first+mark.count; g++ {
				p.may[g] = append(p.may[g], mark.stamp)
			}
		case sealing:
			p.parents, p.sealing = append(p.parents, mark.parent), mark
		case sealed:
			p.parents, p.sealing = []string{string(mark)}, sealing{}
		}
	}
	return p
}

// unlessNew forgives that there is no overlay yet.
func (p *promises) unlessNew(err error) error {
	if !p.created {
		return nil
	}
	return err
}

func (p *promises) check(o *qcow2.Overlay) error {
	held := make(map[int64]bool)
	for e, err := range o.Extents(0, o.Size()) {
		if err != nil {
			return err
		}
		if e.Kind == disk.Absent {
			continue
		}
		got := make([]byte, e.Length)
		if _, err := o.ReadAt(got, e.Offset); err != nil {
			return err
		}
		for at := int64(0); at < e.Length; at += grain {
			g := (e.Offset + at) / grain
			held[g] = true
			if err := p.checkContent(g, got[at:min(at+grain, e.Length)]); err != nil {
				return err
			}
		}
	}
	for g := range p.flushed {
		if !held[g] {
			return fmt.Errorf("subcluster %d was flushed and is absent", g)
		}
	}
	return nil
}

// checkContent asks each sector to be of the flushed stamp or of a later one.
func (p *promises) checkContent(g int64, got []byte) error {
	allowed := p.may[g]
	if stamp, ok := p.flushed[g]; ok {
		allowed = append(slices.Clone(allowed), stamp)
	}
	for len(got) > 0 {
		sector := got[:512]
		if stamp := binary.BigEndian.Uint64(sector); !carries(sector, stamp) || !slices.Contains(allowed, stamp) {
			return fmt.Errorf("subcluster %d holds stamp %d, of %d", g, stamp, allowed)
		}
		got = got[512:]
	}
	return nil
}

// goOn opens the state as after a restart and works on: all of it is there, and nothing gets in the way.
func goOn(crash *durabletest.Crash) error {
	p := promisesOf(crash)
	for _, mark := range crash.Marks() {
		crash.Mark(mark)
	}
	file, err := crash.Dir().Open("overlay", durable.ReadWrite)
	if err != nil {
		return p.unlessNew(err)
	}
	o, err := qcow2.Open(file, durable.ReadWrite, smallCache)
	if err != nil {
		return p.unlessNew(err)
	}
	crash.Mark(created{})
	written := make(added)
	for i := range int64(12) {
		g, stamp := i*7+i*i*5000%(o.Size()/grain-20), uint64(1)<<40+uint64(i)
		crash.Mark(change{stamp, g, 1})
		if _, err := o.WriteAt(content(stamp), g*grain); err != nil {
			return err
		}
		written[g] = stamp
	}
	if err := o.Flush(); err != nil {
		return err
	}
	crash.Mark(written)
	return errors.Join(o.Close(), crashAgain(crash))
}

// crashAgain loses power while the state was gone on with.
func crashAgain(crash *durabletest.Crash) error {
	for again := range crash.Crashes(durabletest.Options{Singles: 2, Random: 1, Every: 8}) {
		if err := checkCrash(again); err != nil {
			return fmt.Errorf("and again %v: %w", again, err)
		}
	}
	return nil
}

// askQEMU checks and reads the state with qemu-img.
func askQEMU(t *testing.T, crash *durabletest.Crash) error {
	t.Helper()
	p := promisesOf(crash)
	path := filepath.Join(memoryDir(t), "overlay")
	file, err := crash.Dir().Open("overlay", durable.ReadOnly)
	if err != nil || !p.created {
		return p.unlessNew(err)
	}
	must(t, copySparse(path, file))
	check(t, path, 3)
	o, err := qcow2.Open(file, durable.ReadOnly)
	must(t, err)
	if name, _ := o.Parent(); name != "" {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o600))
	}
	f := &fixture{directory: filepath.Dir(path), model: &model{size: o.Size(), stamps: make(map[int64]uint64)}}
	f.run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, path+".raw")
	return compareWithRaw(p, path+".raw")
}

// compareWithRaw reads what QEMU read, where it was flushed.
func compareWithRaw(p *promises, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for g := range p.flushed {
		got := make([]byte, grain)
		n, err := file.ReadAt(got, g*grain)
		if err != nil && err != io.EOF {
			return err
		}
		if err := p.checkContent(g, got[:n]); err != nil {
			return fmt.Errorf("as QEMU reads it: %w", err)
		}
	}
	return nil
}

func copySparse(path string, from durable.File) error {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer to.Close()
	size, err := from.Size()
	if err != nil {
		return err
	}
	for at := int64(0); ; {
		start, end, err := from.SeekData(at)
		if errors.Is(err, io.EOF) {
			return to.Truncate(size)
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, start), io.NewSectionReader(from, start, end-start)); err != nil {
			return err
		}
		at = end
	}
}
