package merge

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// allowed are the contents that may be found after a crash from here on.
type allowed []models

// history is the life of a VM: resyncs that commit, one that is aborted, two that wait for their merges together,
// one that finds no difference, merges, and the removal.
func history(r *durabletest.Recorder, k kind, seed uint64) (from int, err error) {
	rng := rand.New(rand.NewPCG(seed, 5))
	w := openWorld(r, k)
	now, err := w.adopt(rng)
	if err != nil {
		return 0, err
	}
	from = r.Ops()
	r.Drop(k.drop)
	r.Mark(allowed{now})
	transfer := 0
	resync := func(commit bool) error {
		transfer++
		if err := w.vm().Acquire(); err != nil {
			return err
		}
		next, err := w.receive(rng, transfer, replication.KindResync, now)
		if err != nil {
			return err
		}
		if !commit {
			_, err := w.vm().Abort(newID(transfer), 1)
			return errors.Join(err, w.vm().Release())
		}
		r.Mark(allowed{now, next})
		if err := w.commit(transfer, next); err != nil {
			return err
		}
		now = next
		r.Mark(allowed{now})
		return w.vm().Release()
	}
	for _, step := range []func() error{
		func() error { return resync(true) }, w.recover,
		func() error { return resync(false) }, w.recover,
		func() error { return resync(true) }, func() error { return resync(true) }, w.recover,
	} {
		if err := step(); err != nil {
			return from, err
		}
	}
	return from, nil
}

// checkCrash restarts on what a crash left and says what is wrong with it.
func checkCrash(c *durabletest.Crash, k kind) error {
	wanted := c.Marks()[len(c.Marks())-1].(allowed)
	w := openWorld(c.Recorder, kind{plain: k.plain, size: k.size})
	if err := w.checkCursors(); err != nil {
		return fmt.Errorf("before recovery: %w", err)
	}
	if err := w.abortOpen(); err != nil {
		return fmt.Errorf("abort: %w", err)
	}
	if err := w.recover(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	after, err := w.view()
	if err != nil {
		return fmt.Errorf("after recovery: %w", err)
	}
	if wrong := differs(after, wanted); wrong != "" {
		return fmt.Errorf("after recovery: %s", wrong)
	}
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	if err := w.checkSettled(record); err != nil {
		return err
	}
	return w.checkRepeat(record, after)
}

// abortOpen cancels a transfer that the crash interrupted.
func (w *world) abortOpen() error {
	record, err := w.vm().Record()
	if err != nil || record.Transfer == nil {
		return err
	}
	_, err = w.vm().Abort(record.Transfer.ID, record.Term)
	return err
}

// checkCursors compares what is seen through a receiving layer, or in an incomplete base, with the root that the
// record has for it.
func (w *world) checkCursors() error {
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	content, err := w.view()
	if err != nil {
		return err
	}
	for _, d := range record.Disks {
		if t := record.Cursor(d.ID); t != nil && t.Proven && rootOf(content[d.ID]) != t.Root {
			return fmt.Errorf("disk %s does not hold what its cursor says", d.ID)
		}
	}
	return nil
}

// checkSettled says that nothing is left to do and that exactly the record's files exist.
func (w *world) checkSettled(record chain.Record) error {
	if step, _ := Next(record, w.vm()); step != (Step{}) || record.Transfer != nil || len(record.Creating) > 0 {
		return fmt.Errorf("recovery left work: %+v", record)
	}
	names, err := w.dir.List(testDir)
	if err != nil {
		return err
	}
	var files []string
	for _, name := range names {
		files = append(files, path.Join(testDir, name))
	}
	if known := record.Files(); !slices.Equal(files, slices.Sorted(slices.Values(known))) {
		return fmt.Errorf("the directory holds %v, the record knows %v", files, known)
	}
	return nil
}

// checkRepeat recovers once more, which changes nothing.
func (w *world) checkRepeat(record chain.Record, content models) error {
	if err := w.recover(); err != nil {
		return fmt.Errorf("recover twice: %w", err)
	}
	again, err := w.vm().Record()
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(record, again) {
		return fmt.Errorf("a second recovery changed the record from %+v to %+v", record, again)
	}
	view, err := w.view()
	if err != nil {
		return err
	}
	if wrong := differs(view, []models{content}); wrong != "" {
		return fmt.Errorf("a second recovery changed the content: %s", wrong)
	}
	return nil
}

// tryCrashes runs a history and restarts after every crash of it, until one is found wrong.
func tryCrashes(t *testing.T, k kind, seed uint64, options durabletest.Options) (states int, wrong error) {
	t.Helper()
	r := durabletest.New()
	from, err := history(r, k, seed)
	if err != nil {
		return 0, fmt.Errorf("without a crash: %w", err)
	}
	options.Seed, options.From = seed, from
	for c := range r.Crashes(options) {
		states++
		if err := checkCrash(c, k); err != nil {
			return states, fmt.Errorf("seed %d, %s:\n%w", seed, c, err)
		}
	}
	return states, nil
}

func TestEveryCrashKeepsTheLastCommit(t *testing.T) {
	options := durabletest.Options{Random: 2, Singles: 4}
	if testing.Short() {
		options = durabletest.Options{Random: 1, Singles: 1, Every: 4}
	}
	states, err := tryCrashes(t, kind{}, 1, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states", states)
}

var wantedStates = flag.Int("states", 10_000, "crashes to try over many histories")

func TestEveryCrashOfManyHistories(t *testing.T) {
	total, wanted := 0, *wantedStates
	options := durabletest.Options{}
	if testing.Short() {
		wanted, options = min(wanted, 500), durabletest.Options{Random: 1, Singles: 2, Every: 3}
	}
	for seed := uint64(1); total < wanted; seed++ {
		states, err := tryCrashes(t, kind{plain: true}, seed, options)
		if err != nil {
			t.Fatal(err)
		}
		total += states
	}
	t.Logf("%d states", total)
}

// TestMutantsAreCaught breaks one rule at a time; each must show in some crash of some history.
func TestMutantsAreCaught(t *testing.T) {
	for name, mutant := range map[string]kind{
		"the base is never synced":                    {drop: durabletest.SyncOf("root")},
		"layers are never synced":                     {drop: durabletest.SyncOf("*.qcow2")},
		"the directory is never synced":               {drop: durabletest.SyncDirOf("web01")},
		"deletions are not synced":                    {storage: func(s chain.Storage) chain.Storage { return lazyRemove{s} }},
		"files are deleted before the record says so": {store: deleteEarly},
		"the record says so before the base is synced": {storage: func(s chain.Storage) chain.Storage {
			return lateFlush{s}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			mutant.plain = true
			for seed := uint64(1); seed <= 3; seed++ {
				states, err := tryCrashes(t, mutant, seed, durabletest.Options{})
				if err != nil {
					t.Logf("caught at state %d: %.300v", states, err)
					return
				}
			}
			t.Error("nothing was noticed")
		})
	}
}

// deleteEarly deletes what becomes garbage while its transaction is not yet durable.
func deleteEarly(store state.Store, dir durable.Dir) state.Store { return earlyStore{store, dir} }

type earlyStore struct {
	state.Store
	dir durable.Dir
}

func (s earlyStore) Update(fn func(state.Tx) error) error {
	return s.Store.Update(func(tx state.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		record, _, err := state.Table[chain.Record]{Bucket: "replicas"}.Get(tx, testVM)
		if err != nil {
			return err
		}
		for _, file := range record.Garbage {
			if err := s.dir.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

// lazyRemove deletes files and does not sync their directory.
type lazyRemove struct{ chain.Storage }

func (s lazyRemove) Remove(files ...string) error {
	dir := s.Storage.(*plainLayers).dir
	for _, file := range files {
		if err := dir.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lateFlush opens bases that flush only when they are closed.
type lateFlush struct{ chain.Storage }

func (s lateFlush) OpenBase(b chain.Base, sectorSize int) (disk.Disk, error) {
	base, err := s.Storage.OpenBase(b, sectorSize)
	return lateBase{base}, err
}

func (s lateFlush) Settle(b chain.Base) (disk.Stamp, error) { return s.Storage.Stamp(b) }

type lateBase struct{ disk.Disk }

func (lateBase) Flush() error { return nil }

func (b lateBase) Close() error { return errors.Join(b.Disk.Flush(), b.Disk.Close()) }

// TestEveryFaultKeepsTheLastCommit lets every operation in turn fail and restarts after it, with or without a loss
// of power.
func TestEveryFaultKeepsTheLastCommit(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		for k := 1; ; k += step {
			r := durabletest.New()
			r.FailAt(k, fault)
			_, err := history(r, kind{plain: true}, 1)
			if !r.Faulted() {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			r.FailAt(0, nil)
			for c := range r.Crashes(durabletest.Options{From: r.Ops(), Random: 1, Singles: 1}) {
				if len(c.Marks()) == 0 {
					continue // nothing was promised yet
				}
				if err := checkCrash(c, kind{plain: true}); err != nil {
					t.Fatalf("operation %d answered %v; %s:\n%v", k, fault, c, err)
				}
			}
		}
	}
}
