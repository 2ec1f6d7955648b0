package merge

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
)

// shortHistory is two commits that wait together, and their merges.
func shortHistory(r *durabletest.Recorder, k kind) (from int, err error) {
	rng := rand.New(rand.NewPCG(9, 13))
	w := openWorld(r, k)
	now, err := w.adopt(rng)
	if err != nil {
		return 0, err
	}
	from = r.Ops()
	r.Mark(allowed{now})
	for transfer := 1; transfer <= 2; transfer++ {
		if err := w.vm().Acquire(); err != nil {
			return from, err
		}
		next, err := w.receive(rng, transfer, replication.KindResync, now)
		if err != nil {
			return from, err
		}
		r.Mark(allowed{now, next})
		if err := w.commit(transfer, next); err != nil {
			return from, err
		}
		now = next
		r.Mark(allowed{now})
		if err := w.vm().Release(); err != nil {
			return from, err
		}
	}
	return from, w.recover()
}

// TestEveryCrashOfEveryFormat loses power everywhere between two commits and the end of their merges. Our reader finds
// what was committed each time, and other programs do in a sample of the merged bases.
func TestEveryCrashOfEveryFormat(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine, long")
	}
	for _, f := range []replication.Format{"vhdx", "vhd", "qcow2"} {
		t.Run(string(f), func(t *testing.T) {
			k := kind{base: f, size: wholeSize}
			r := durabletest.New()
			from, err := shortHistory(r, k)
			check(t, err)
			options := durabletest.Options{From: from, Seed: 1, Random: 1, Singles: 1, Every: 2}
			states, samples := 0, 0
			for c := range r.Crashes(options) {
				if err := checkCrash(c, k); err != nil {
					t.Fatalf("%s:\n%v", c, err)
				}
				if states++; states%40 == 0 {
					samples++
					if err := basesAgree(t.TempDir(), c, k); err != nil {
						t.Fatalf("%s:\n%v", c, err)
					}
				}
			}
			t.Logf("%d states, %d read by others", states, samples)
			if samples == 0 {
				t.Error("nothing was read by others")
			}
		})
	}
}

// basesAgree compares the bases after a recovery, as another implementation reads them, with what is seen of them here.
func basesAgree(dir string, c *durabletest.Crash, k kind) error {
	w := openWorld(c.Recorder, kind{size: k.size})
	content, err := w.view()
	if err != nil {
		return err
	}
	for _, id := range diskIDs {
		to := filepath.Join(dir, id)
		if err := copyOut(w.dir, path.Join(testDir, id), to); err != nil {
			return err
		}
		got, err := others(to, k.base, false)
		if err != nil {
			return err
		}
		if at := firstDifference(got, content[id]); at >= 0 {
			return fmt.Errorf("disk %s is read by another program with another byte at %d", id, at)
		}
	}
	return nil
}

// copyOut copies a file of a directory in memory to the host.
func copyOut(dir durable.Dir, name, to string) error {
	file, err := dir.Open(name, durable.ReadOnly)
	if err != nil {
		return err
	}
	return errors.Join(disktest.Export(to, file), file.Close())
}

// TestTheBaseEndsWithTheLayersIdentity loses power everywhere in a merge: however often it is redone, the base has the
// identity of the layer in the end.
func TestTheBaseEndsWithTheLayersIdentity(t *testing.T) {
	for _, f := range []replication.Format{"vhdx", "vhd"} {
		t.Run(string(f), func(t *testing.T) {
			r := durabletest.New()
			w := openWorld(r, kind{base: f, size: wholeSize})
			rng := rand.New(rand.NewPCG(7, 14))
			now, err := w.adopt(rng)
			check(t, err)
			check(t, w.vm().Acquire())
			next, err := w.receive(rng, 1, replication.KindResync, now)
			check(t, err)
			check(t, w.commit(1, next))
			check(t, w.vm().Release())
			want, err := w.identities(0)
			check(t, err)
			from := r.Ops()
			check(t, w.recover())
			for c := range r.Crashes(durabletest.Options{From: from, Random: 1, Singles: 1, Every: 3}) {
				again := openWorld(c.Recorder, kind{size: wholeSize})
				check(t, again.recover())
				got, err := again.identities(-1)
				check(t, err)
				for id := range want {
					if got[id] != want[id] {
						t.Fatalf("%s:\ndisk %s has the identity %s, its layer had %s", c, id, got[id], want[id])
					}
				}
			}
		})
	}
}

// identities are those of one layer of each disk, or of the bases for -1. Nothing is written.
func (w *world) identities(layer int) (found map[string]disk.Identity, err error) {
	if err := w.vm().Acquire(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.vm().Release()) }()
	record, err := w.vm().Record()
	if err != nil {
		return nil, err
	}
	found = map[string]disk.Identity{}
	for _, d := range record.Disks {
		opened, err := w.vm().Disk(d.ID)
		if err != nil {
			return nil, err
		}
		if layer >= 0 {
			found[d.ID] = opened.Layers()[layer].(disk.Identified).Identity()
		} else if found[d.ID], err = w.baseIdentity(d); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// baseIdentity opens a base a second time, which a directory in memory allows.
func (w *world) baseIdentity(d chain.Disk) (disk.Identity, error) {
	base := d.Base
	base.Stamp = disk.Stamp{}
	opened, err := w.files.OpenBase(base, d.LogicalSectorSize)
	if err != nil {
		return disk.None, err
	}
	return opened.(disk.Identified).Identity(), opened.Close()
}
