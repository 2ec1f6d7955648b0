package tracking_test

import (
	"errors"
	"testing"
	"time"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// holdUp holds up the changes of a disk's first block, which are told on begun, until it is closed; those of its second
// fail.
func holdUp(image *memory, result error) (begun, release chan struct{}) {
	begun, release = make(chan struct{}, 1), make(chan struct{})
	image.before = func(what string, off, _ int64) error {
		switch {
		case what != "write":
			return nil
		case off == 0:
			begun <- struct{}{}
			<-release
			return result
		default:
			return errIO
		}
	}
	return begun, release
}

// flipped waits until the marks of before are an epoch.
func flipped(r *rig) {
	for r.group.Figures().Pending == 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestALossWhileAResyncBeginsIsKept(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	begun, release := holdUp(r.images[0], nil)
	ended := make(chan error, 2)
	go func() {
		_, err := r.disks[0].WriteAt([]byte{1}, 0)
		ended <- err
	}()
	<-begun
	go func() { ended <- r.begin() }()
	flipped(r)
	if _, err := r.disks[0].WriteAt([]byte{1}, 4096); !errors.Is(err, errIO) {
		t.Fatal(err)
	}
	close(release)
	must(t, errors.Join(<-ended, <-ended))
	if loss := r.disks[0].Loss(); loss.Cause != hrl.TrackingLost {
		t.Fatalf("what was lost after the cut of a resync counts as %v", loss)
	}
	r.images[0].before = nil
	must(t, r.begin())
	if loss := r.disks[0].Loss(); loss.Cause != hrl.None {
		t.Fatalf("begun again, tracking is %v", loss)
	}
	r.close()
}

// What a write of before the cut does not mark is not in the cut: it must not be shipped as an instant of the machine.
func TestACutWhoseWritesLoseTrackingIsNone(t *testing.T) {
	r := newRig(t, ample, 1<<20, 1<<20)
	begun, release := holdUp(r.images[1], errIO)
	wrote := make(chan error, 1)
	go func() {
		_, err := r.disks[1].WriteAt([]byte{1}, 0)
		wrote <- err
	}()
	<-begun
	cut := make(chan error, 1)
	go func() {
		_, err := r.group.Cut(t.Context(), replication.NewID())
		cut <- err
	}()
	flipped(r)
	close(release)
	if err := <-wrote; !errors.Is(err, errIO) {
		t.Fatal(err)
	}
	if err := <-cut; err == nil || failure.Find(err).Reason != failure.ReasonTrackingLost {
		t.Fatalf("the cut: %v", err)
	}
	r.images[1].before = nil
	must(t, r.begin()) // no epoch is left open
	r.close()
}

// A commit takes place whatever happens to a log meanwhile. It cannot be acknowledged then, and a resync must be possible.
func TestAnEpochThatCannotBeAcknowledgedEnds(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	_, err := r.disks[0].WriteAt([]byte{1}, 0)
	must(t, err)
	e := r.cut()
	must(t, e.Sent(0, 0, 1<<20))
	r.images[0].before = func(string, int64, int64) error { return errIO }
	if err := r.disks[0].Flush(); !errors.Is(err, errIO) {
		t.Fatal(err)
	}
	r.images[0].before = nil
	if err := e.Ack(); err == nil || failure.Find(err).Reason != failure.ReasonTrackingLost {
		t.Fatalf("a lost log was acknowledged: %v", err)
	}
	if f := r.group.Figures(); f.Live != 64<<10 || f.Sent+f.Pending != 0 {
		t.Fatalf("%+v", f)
	}
	must(t, r.begin())
	if err := e.Ack(); !errors.Is(err, tracking.ErrEpochOver) {
		t.Fatalf("acknowledged twice: %v", err)
	}
	r.close()
}

// A cut that breaks when everything of it was read and sent was sent as it was.
func TestACutThatBreaksAfterItWasSentIsAcknowledged(t *testing.T) {
	r := newRig(t, 0, 1<<20)
	_, err := r.disks[0].WriteAt(make([]byte, 8192), 0)
	must(t, err)
	e := r.cut()
	p := make([]byte, 8192)
	must(t, e.ReadAt(0, p, 0))
	_, err = r.disks[0].WriteAt([]byte{1}, 0)
	must(t, err)
	<-e.Broken()
	if err := e.Ack(); !errors.Is(err, tracking.ErrBroken) {
		t.Fatalf("a broken cut that is not sent: %v", err)
	}
	must(t, e.Sent(0, 0, 8192))
	must(t, e.Ack())
	if f := r.group.Figures(); f.Live != hrl.BlockSize || f.Sent+f.Pending != 0 {
		t.Fatalf("%+v", f)
	}
	r.close()
}

// The writes of a lost disk find the loss while a resync puts it right, over and over: whoever comes second must not
// bring it back, and nothing must keep the next one from being known.
func TestALossThatAResyncPutRightDoesNotComeBack(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	r.images[0].before = func(what string, _, _ int64) error {
		if what == "flush" {
			return errIO
		}
		return nil
	}
	stop, ended := make(chan struct{}), make(chan error, 4)
	for i := range cap(ended) {
		go func() {
			var err error
			for running := true; running && err == nil; {
				_, err = r.disks[0].WriteAt([]byte{1}, int64(i)*4096)
				select {
				case <-stop:
					running = false
				default:
				}
			}
			ended <- err
		}()
	}
	for range 300 {
		if err := r.disks[0].Flush(); !errors.Is(err, errIO) || r.disks[0].Loss().Cause != hrl.TrackingLost {
			t.Fatalf("the flush: %v, tracking is %v", err, r.disks[0].Loss())
		}
		must(t, r.begin())
		if loss := r.disks[0].Loss(); loss.Cause != hrl.None {
			t.Fatalf("a resync has begun, and tracking is %v", loss)
		}
	}
	close(stop)
	for range cap(ended) {
		must(t, <-ended)
	}
	r.close()
}
