package tracking_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// shipAll sends everything of an epoch to the replicas.
func shipAll(e *tracking.Epoch, replicas [][]byte) error {
	for i, replica := range replicas {
		for r, err := range e.Extents(i) {
			if err != nil {
				return err
			}
			if err := e.ReadAt(i, replica[r.Offset:r.Offset+r.Length], r.Offset); err != nil {
				return err
			}
			if err := e.Sent(i, r.Offset, r.Length); err != nil {
				return err
			}
		}
	}
	return nil
}

// held is an image whose next change waits.
type held struct{ entered, release chan struct{} }

func hold(m *memory) held {
	h := held{make(chan struct{}), make(chan struct{})}
	var met atomic.Bool
	m.before = func(what string, _, _ int64) error {
		if what == "write" && met.CompareAndSwap(false, true) {
			close(h.entered)
			<-h.release
		}
		return nil
	}
	return h
}

func writeBeside(t *testing.T, d *tracking.Disk, p []byte, off int64) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		if _, err := d.WriteAt(p, off); err != nil {
			t.Error(err)
		}
	}()
	return done
}

func TestACutWaitsForTheWritesAdmittedBefore(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	h := hold(r.images[0])
	done := writeBeside(t, r.disks[0], []byte{1}, 5000)
	<-h.entered

	flipped := make(chan *tracking.Epoch)
	go func() { flipped <- r.cut() }()
	for r.group.Figures().Pending == 0 { // until the flip
		select {
		case <-flipped:
			t.Fatal("the cut did not wait")
		default:
		}
	}
	// A write of the new epoch is not held up by the cut, neither elsewhere nor by the shipper.
	if _, err := r.disks[0].WriteAt([]byte{2}, 512<<10); err != nil {
		t.Fatal(err)
	}
	close(h.release)
	<-done
	e := <-flipped
	replicas := [][]byte{make([]byte, 1<<20)}
	must(t, shipAll(e, replicas))
	must(t, e.Ack())
	if replicas[0][5000] != 1 || replicas[0][512<<10] != 0 {
		t.Fatal("the cut is not the instant of the flip")
	}
	if marks := r.marks(0); len(marks) != 1 || !marks[128] {
		t.Fatalf("marked are %v", marks)
	}
}

func TestACutThatDoesNotWaitIsNoticed(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	h := hold(r.images[0])
	done := writeBeside(t, r.disks[0], []byte{1}, 5000)
	<-h.entered
	e, err := r.group.CutWithoutWaiting()
	must(t, err)
	replicas := [][]byte{make([]byte, 1<<20)}
	must(t, shipAll(e, replicas))
	must(t, e.Ack())
	close(h.release)
	<-done
	if bytes.Equal(replicas[0], r.images[0].snapshot()) || r.marks(0)[1] {
		t.Fatal("the mutant lost nothing")
	}
}

func TestAWriteWaitsForAnOlderOneOfTheSameFrozenBlockAlone(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	h := hold(r.images[0])
	first := writeBeside(t, r.disks[0], []byte{1}, 100)
	<-h.entered
	e, err := r.group.CutWithoutWaiting() // the part of a cut before it waits
	must(t, err)
	second := writeBeside(t, r.disks[0], []byte{2}, 2000) // in the same block, which is frozen
	close(h.release)
	<-first
	<-second
	replicas := [][]byte{make([]byte, 1<<20)}
	must(t, shipAll(e, replicas))
	if replicas[0][100] != 1 || replicas[0][2000] != 0 {
		t.Fatalf("the cut holds %d and %d, want 1 and 0", replicas[0][100], replicas[0][2000])
	}
	must(t, e.Ack())
}

func TestACancelledCutLosesNothing(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	h := hold(r.images[0])
	done := writeBeside(t, r.disks[0], []byte{1}, 5000)
	<-h.entered
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, err := r.group.Cut(ctx, replication.NewID()); failed <- err }()
	for r.group.Figures().Pending == 0 {
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(h.release)
	<-done
	if marks := r.marks(0); !marks[1] {
		t.Fatal("the mark is gone")
	}
	must(t, r.cut().Abort())
}

// chain is one machine's program: it writes a number to one disk and, when that is answered, to the other. Several
// share blocks.
func chain(t *testing.T, r *rig, which int64, stop *atomic.Bool) {
	random := rand.New(rand.NewPCG(uint64(which), 1))
	noise := make([]byte, 20_000)
	for value := uint64(1); !stop.Load(); value++ {
		var p [8]byte
		binary.LittleEndian.PutUint64(p[:], value)
		for _, d := range r.disks {
			if _, err := d.WriteAt(p[:], which*8+which/4*8192); err != nil {
				t.Error(err)
			}
		}
		d := r.disks[random.IntN(2)]
		off := 1<<20 + which*(64<<10) + random.Int64N(40_000)
		var err error
		switch random.IntN(4) {
		case 0:
			err = d.Zero(off, 20_000, value%2 == 0)
		case 1:
			err = d.Trim(off, 20_000)
		default:
			noise[0] = byte(value)
			_, err = d.WriteAt(noise, off)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func TestEveryAcknowledgedCutIsOneInstant(t *testing.T) {
	const size, writers, cuts = 2 << 20, 8, 60
	r := newRig(t, ample, size, size)
	defer r.close()
	var stop atomic.Bool
	var group sync.WaitGroup
	for which := range int64(writers) {
		group.Go(func() { chain(t, r, which, &stop) })
	}
	replicas := [][]byte{make([]byte, size), make([]byte, size)}
	moved := uint64(0)
	for number := 0; number < cuts || moved < cuts/4; number++ {
		if number%5 == 0 {
			round, err := r.group.Round(t.Context())
			must(t, err)
			must(t, shipAll(round, replicas))
			must(t, round.End())
		}
		e := r.cut()
		must(t, shipAll(e, replicas))
		must(t, e.Ack())
		for which := int64(0); which < writers; which++ {
			at := which*8 + which/4*8192
			a, b := binary.LittleEndian.Uint64(replicas[0][at:]), binary.LittleEndian.Uint64(replicas[1][at:])
			if a != b && a != b+1 {
				t.Errorf("cut %d: writer %d wrote %d and then %d", number, which, a, b)
			}
			moved = max(moved, a)
		}
	}
	stop.Store(true)
	group.Wait()
	e := r.cut()
	must(t, shipAll(e, replicas))
	must(t, e.Ack())
	for i := range replicas {
		if !bytes.Equal(replicas[i], r.images[i].snapshot()) {
			t.Errorf("disk %d is not as its replica", i)
		}
		if len(r.marks(i)) != 0 {
			t.Errorf("disk %d has marks after everything was acknowledged", i)
		}
	}
	if used := r.budget.Used(); used != 0 {
		t.Errorf("%d bytes of the budget are in use", used)
	}
}

func TestABrokenCutReturnsAndTheGuestGoesOn(t *testing.T) {
	r := newRig(t, 2*hrl.BlockSize, 1<<20)
	defer r.close()
	d, p := r.disks[0], make([]byte, 1<<20)
	_, err := d.WriteAt(p, 0)
	must(t, err)
	e := r.cut()
	must(t, e.Sent(0, 0, 64<<10))
	if _, err := d.WriteAt([]byte{7}, 0); err != nil || r.budget.Used() != 0 {
		t.Fatalf("a sent block was kept: %d bytes, %v", r.budget.Used(), err)
	}
	for i := range int64(2) {
		_, err := d.WriteAt([]byte{7}, 64<<10+i*4096)
		must(t, err)
	}
	if kept := e.Kept(0); e.Err() != nil || r.budget.Used() != 2*hrl.BlockSize || len(kept) != 1 || kept[0] != (tracking.Range{Offset: 64 << 10, Length: 8192}) {
		t.Fatalf("%d bytes of the budget are in use for %v: %v", r.budget.Used(), e.Kept(0), e.Err())
	}
	if _, err := d.WriteAt(p[:100<<10], 512<<10); err != nil {
		t.Fatalf("the guest was told of it: %v", err)
	}
	<-e.Broken()
	if err := e.ReadAt(0, p[:4096], 800<<10); !errors.Is(err, tracking.ErrBroken) {
		t.Fatalf("a broken cut was read: %v", err)
	}
	if err := e.Ack(); !errors.Is(err, tracking.ErrBroken) {
		t.Fatalf("a broken cut was acknowledged: %v", err)
	}
	must(t, e.End())
	f := r.group.Figures()
	if r.budget.Used() != 0 || f.Pending != 0 || f.Live != 241*hrl.BlockSize || f.Sent != 64<<10 {
		t.Fatalf("%+v", f)
	}
}

func TestAnEpochIsReadWithinItselfAlone(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	_, err := r.disks[0].WriteAt([]byte{1}, 8192)
	must(t, err)
	e := r.cut()
	for _, test := range []struct{ off, n int64 }{{4096, 4096}, {8192, 4097}, {8191, 2}, {0, 100}} {
		if err := e.ReadAt(0, make([]byte, test.n), test.off); !errors.Is(err, tracking.ErrNotInEpoch) {
			t.Errorf("%d bytes at %d: %v", test.n, test.off, err)
		}
	}
	must(t, e.ReadAt(0, make([]byte, 100), 8200))
	if err := e.Ack(); !errors.Is(err, hrl.ErrPending) {
		t.Errorf("a cut that was not sent was acknowledged: %v", err)
	}
	must(t, e.Sent(0, 8192, 4096))
	if err := e.ReadAt(0, make([]byte, 100), 8200); !errors.Is(err, tracking.ErrNotInEpoch) {
		t.Errorf("what is sent can still be read: %v", err)
	}
	must(t, e.Ack())
}

func TestATrimOfFrozenBlocksIsDropped(t *testing.T) {
	r := newRig(t, 0, 1<<20)
	defer r.close()
	d, p := r.disks[0], bytes.Repeat([]byte{9}, 64<<10)
	_, err := d.WriteAt(p, 0)
	must(t, err)
	_, err = d.WriteAt(p, 128<<10)
	must(t, err)
	e := r.cut()
	_, err = d.WriteAt(p[:4096], 80<<10) // not frozen
	must(t, err)
	must(t, d.Trim(100, 1<<20-200))
	now := r.images[0].snapshot()
	if now[200] != 9 || now[80<<10] != 0 || now[150<<10] != 9 || e.Err() != nil {
		t.Fatalf("a trim left %d, %d, %d: %v", now[200], now[80<<10], now[150<<10], e.Err())
	}
	must(t, e.Abort())
	must(t, d.Trim(0, 1<<20))
	if !bytes.Equal(r.images[0].snapshot(), make([]byte, 1<<20)) {
		t.Fatal("nothing is frozen, and a trim was dropped")
	}
}
