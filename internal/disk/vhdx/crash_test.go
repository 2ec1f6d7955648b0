package vhdx_test

import (
	"fmt"
	"slices"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// TestCrashes loses power after every operation, with every choice of what was not synced. Each state opens, is
// whole, holds what was flushed, and can be gone on with.
func TestCrashes(t *testing.T) {
	disktest.OneGoroutine(t)
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
				if err == nil && states%101 == 0 {
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
	disktest.OneGoroutine(t)
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
		if s.m.checkOpened(crash, durable.ReadOnly) != nil {
			return true
		}
	}
	return false
}

// checkCrash holds a state against what was promised before it: read with the log in memory, and after a replay.
func (m *model) checkCrash(crash *durabletest.Crash) error {
	for _, mode := range []durable.Mode{durable.ReadOnly, durable.ReadWrite} {
		if err := m.checkOpened(crash, mode); err != nil {
			return fmt.Errorf("mode %d: %w", mode, err)
		}
	}
	return nil
}

func (m *model) checkOpened(crash *durabletest.Crash, mode durable.Mode) error {
	p := promisesOf(crash)
	file, err := crash.Dir().Open("disk", mode)
	if err != nil {
		return p.unlessNew(err)
	}
	d, err := m.open(file, mode)
	if err != nil {
		return p.unlessNew(err)
	}
	return m.checkState(file, d, p)
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
