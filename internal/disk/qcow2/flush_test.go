package qcow2_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// TestReadersAndWritersGoOnBesideAFlush stops every operation of a Flush in turn and uses the overlay meanwhile.
// What the Flush had noted is in the file when it ends, and what came later is not there before its data is synced.
func TestReadersAndWritersGoOnBesideAFlush(t *testing.T) {
	for stop := range 8 {
		file, m := newMemory(), newModel(4<<30)
		o, err := qcow2.Create(file, m.size)
		must(t, err)
		m.set(t, o, 0, 0, 100)
		m.set(t, o, 0, 9000, 8)
		must(t, o.Flush())
		m.set(t, o, 0, 100, 3)
		m.set(t, o, 0, 700000, 4)
		before := &model{size: m.size, stamps: copyOf(m.stamps)}
		reached, resume := make(chan struct{}), make(chan struct{})
		var mu sync.Mutex
		done := 0
		file.watch = func(o op) error {
			mu.Lock()
			done++
			here := done == stop+1
			mu.Unlock()
			if here {
				close(reached)
				<-resume
			}
			return nil
		}
		flushed := make(chan error)
		go func() { flushed <- o.Flush() }()
		select {
		case <-reached:
		case err := <-flushed:
			must(t, err)
			if stop < 5 {
				t.Fatalf("a flush took %d operations only", stop)
			}
			continue
		}
		m.set(t, o, 0, 120, 5)
		m.set(t, o, 1, 9100, 5)
		m.set(t, o, 0, 800000, 900)
		m.check(t, o)
		close(resume)
		must(t, <-flushed)
		after, err := qcow2.Open(file.clone(), durable.ReadOnly)
		must(t, err)
		before.check(t, after)
		must(t, o.Flush())
		after, err = qcow2.Open(file.clone(), durable.ReadOnly)
		must(t, err)
		m.check(t, after)
	}
}

func copyOf(stamps map[int64]uint64) map[int64]uint64 {
	copied := make(map[int64]uint64, len(stamps))
	for g, stamp := range stamps {
		copied[g] = stamp
	}
	return copied
}

// TestAFailedFlushIsFinal fails every operation of a Flush in turn: nothing is tried again, nothing is written.
func TestAFailedFlushIsFinal(t *testing.T) {
	broken := errors.New("input/output error")
	for at := range 8 {
		file, m := newMemory(), newModel(4<<30)
		o, err := qcow2.Create(file, m.size)
		must(t, err)
		m.set(t, o, 0, 0, 100)
		ops := 0
		file.watch = func(op) error {
			if ops++; ops == at+1 {
				return broken
			}
			return nil
		}
		first := o.Flush()
		if first == nil {
			if at < 5 {
				t.Fatalf("a flush has %d operations only", at)
			}
			return
		}
		if !errors.Is(first, broken) {
			t.Fatalf("flush: %v", first)
		}
		_, write := o.WriteAt(content(1), 0)
		for call, err := range map[string]error{"Flush": o.Flush(), "WriteAt": write, "Zero": o.Zero(0, grain),
			"Seal": o.Seal(disk.Parent{Name: "base", Format: "raw"}), "Close": o.Close()} {
			if !errors.Is(err, broken) {
				t.Errorf("%s after a failed flush: %v", call, err)
			}
		}
		if ops != at+1 {
			t.Errorf("%d operations followed the failed one", ops-at-1)
		}
		m.check(t, o)
	}
}

// TestAFailedWriteIsNotFinal runs out of space in a write, and goes on when there is space again.
func TestAFailedWriteIsNotFinal(t *testing.T) {
	full := errors.New("no space left on device")
	for at := range 3 {
		file, m := newMemory(), newModel(4<<30)
		o, err := qcow2.Create(file, m.size)
		must(t, err)
		ops := 0
		file.watch = func(op) error {
			if ops++; ops == at+1 {
				return full
			}
			return nil
		}
		if _, err = o.WriteAt(content(1), 5*cluster); at < 2 && !errors.Is(err, full) {
			t.Errorf("operation %d failed, and the write answered %v", at, err)
		}
		file.watch = nil
		m.set(t, o, 0, 5*cluster/grain, 1)
		must(t, o.Flush())
		m.check(t, o)
	}
}

// TestMetadataStaysWithinItsLimit writes all over a disk and looks at the memory all the while.
func TestMetadataStaysWithinItsLimit(t *testing.T) {
	const size = 64 << 30
	o, err := qcow2.Create(newMemory(), size, qcow2.MetadataLimit(256<<10))
	must(t, err)
	var group sync.WaitGroup
	for w := range uint64(4) {
		group.Go(func() {
			r := rand.New(rand.NewPCG(w, 4))
			for range 600 {
				off := r.Int64N(size/grain) * grain
				if err := o.Zero(off, min(r.Int64N(100<<20)/grain*grain, size-off)); err != nil {
					t.Error(err)
				}
				if _, err := o.ReadAt(make([]byte, 512), r.Int64N(size-512)); err != nil && !errors.Is(err, disk.ErrAbsent) {
					t.Error(err)
				}
				// One slice for each of the others may be on its way in or out.
				if now, limit := o.SlicesInMemory(); now > limit+4 {
					t.Errorf("%d slices in memory, the limit is %d", now, limit)
				}
			}
		})
	}
	group.Wait()
}

// TestWritersOfOneCluster interleaves the subclusters of several writers, flushing and dropping slices all the while.
func TestWritersOfOneCluster(t *testing.T) {
	const size, writers = 8 << 30, 5
	file := newMemory()
	o, err := qcow2.Create(file, size, smallCache)
	must(t, err)
	models := make([]*model, writers)
	var group sync.WaitGroup
	for w := range int64(writers) {
		models[w] = newModel(size)
		models[w].last = uint64(w) << 32
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 6))
			for range 400 {
				g := r.Int64N(30)*(size/grain/30) + r.Int64N(20)
				models[w].set(t, o, r.IntN(3), g/writers*writers+w, 1)
				if r.IntN(100) == 0 {
					if err := o.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	all := newModel(size)
	for _, m := range models {
		for g, stamp := range m.stamps {
			all.stamps[g] = stamp
		}
	}
	all.check(t, o)
	must(t, o.Close())
	must(t, checkStructure(file))
	o, err = qcow2.Open(file, durable.ReadOnly)
	must(t, err)
	all.check(t, o)
}

// TestSealBesideReaders seals again and again while others read, write and flush.
func TestSealBesideReaders(t *testing.T) {
	o, err := qcow2.Create(newMemory(), 8<<30, smallCache)
	must(t, err)
	m := newModel(8 << 30)
	var group sync.WaitGroup
	group.Go(func() {
		for _, parent := range []string{"a", "b", "c", "d", "e", "f"} {
			if err := o.Seal(disk.Parent{Name: parent, Format: "raw"}); err != nil {
				t.Error(err)
			}
			if name, _ := o.Parent(); name != parent {
				t.Errorf("the parent is %q after sealing %q", name, parent)
			}
		}
	})
	for g := range int64(200) {
		m.set(t, o, int(g%3), g*10007, 1)
		m.checkExtent(t, o, disk.Extent{Offset: g * 10007 * grain, Length: grain, Kind: kindOf(m.stamps[g*10007])})
	}
	group.Wait()
	m.check(t, o)
}

// halt makes file stop the first operation that matches, until resume is closed; reached is closed when it does.
func halt(file *memory, matches func(op) bool) (reached, resume chan struct{}) {
	reached, resume = make(chan struct{}), make(chan struct{})
	var halted atomic.Bool
	file.watch = func(o op) error {
		if matches(o) && halted.CompareAndSwap(false, true) {
			close(reached)
			<-resume
		}
		return nil
	}
	return reached, resume
}

// TestAFlushDoesNotPromiseAWriteOnItsWay flushes while a write's data is not in the file: its range stays absent.
func TestAFlushDoesNotPromiseAWriteOnItsWay(t *testing.T) {
	file, m := newMemory(), newModel(1<<30)
	o, err := qcow2.Create(file, m.size)
	must(t, err)
	reached, resume := halt(file, func(o op) bool { return o.kind == opWrite })
	done := make(chan error)
	go func() {
		_, err := o.WriteAt(content(1), 0)
		done <- err
	}()
	<-reached
	must(t, o.Flush())
	after, err := qcow2.Open(file.clone(), durable.ReadOnly)
	must(t, err)
	m.check(t, after)
	close(resume)
	must(t, <-done)
	m.stamps[0] = 1
	m.check(t, o)
}

// TestWhatAFlushHoldsIsNotForgotten reads all over the disk while a Flush is about to write: what it has not
// written yet is not taken from the file.
func TestWhatAFlushHoldsIsNotForgotten(t *testing.T) {
	const size, span = 4 << 30, 32 << 20
	file, m := newMemory(), newModel(size)
	o, err := qcow2.Create(file, size, smallCache)
	must(t, err)
	must(t, o.Zero(0, size))
	must(t, o.Flush())
	for slice := range int64(4) {
		m.set(t, o, 0, slice*span/grain, 1)
	}
	reached, resume := halt(file, func(o op) bool { return o.kind == opSync })
	flushed := make(chan error)
	go func() { flushed <- o.Flush() }()
	<-reached
	look := func() {
		for g, stamp := range m.stamps {
			m.checkExtent(t, o, disk.Extent{Offset: g * grain, Length: grain, Kind: kindOf(stamp)})
		}
	}
	look()
	for off := int64(4 * span); off < size; off += span {
		_, err := o.ReadAt(make([]byte, grain), off)
		must(t, err)
	}
	look()
	close(resume)
	must(t, <-flushed)
}
