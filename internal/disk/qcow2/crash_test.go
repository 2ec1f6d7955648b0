package qcow2_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, holds
// what was flushed, has leaks at worst, and can be gone on with.
func TestCrashes(t *testing.T) {
	disktest.OneGoroutine(t)
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
	disktest.OneGoroutine(t)
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
