package tracking_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// sealed is a directory in which nothing can be removed, nor synced.
type sealed struct{ durable.Dir }

func (s sealed) Remove(string) error { return errIO }
func (s sealed) Sync(string) error   { return errIO }
func (s sealed) Open(name string, mode durable.Mode) (durable.File, error) {
	file, err := s.Dir.Open(name, mode)
	return &jammed{File: file}, err
}

// jammed is a file that takes its first header, of two slots, and nothing after it.
type jammed struct {
	durable.File
	writes int
}

func (j *jammed) WriteAt(p []byte, off int64) (int, error) {
	if j.writes++; j.writes > 2 {
		return 0, errIO
	}
	return j.File.WriteAt(p, off)
}

func TestAVanishedLogIsLostBeforeTheWriteIsAnswered(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	must(t, os.Truncate(r.dir.Path(name(0)), 0))
	told := len(r.losses)
	if _, err := r.disks[0].WriteAt([]byte{1}, 5000); err != nil {
		t.Fatalf("the guest was told of it: %v", err)
	}
	if len(r.losses) != told+1 || r.losses[told].Cause != hrl.WriteFailed || r.disks[0].Loss().Cause != hrl.WriteFailed {
		t.Fatalf("told %v, the log is %v", r.losses, r.disks[0].Loss())
	}
	for range 10 {
		_, err := r.disks[0].WriteAt([]byte{2}, 9000)
		must(t, err)
	}
	if len(r.losses) != told+1 {
		t.Errorf("the owner was told %d times", len(r.losses)-told)
	}
	if _, err := r.group.Cut(t.Context(), replication.NewID()); failure.Find(err).Reason != failure.ReasonTrackingLost {
		t.Errorf("a cut of a lost disk: %v", err)
	}
	r.kill()
	r.open()
	if loss := r.disks[0].Loss(); loss.Cause == hrl.None {
		t.Fatal("after a kill nobody knows")
	}
	must(t, r.begin())
	_, err := r.disks[0].WriteAt([]byte{2}, 9000)
	must(t, err)
	if loss := r.disks[0].Loss(); loss.Cause != hrl.None || !r.marks(0)[2] {
		t.Fatalf("after a resync began tracking is %v", loss)
	}
	r.close()
}

func TestALogThatFailsIsReplacedWhenAResyncBegins(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	must(t, os.Truncate(r.dir.Path(name(0)), 0))
	_, err := r.disks[0].WriteAt([]byte{1}, 5000)
	must(t, err)
	must(t, r.begin())
	_, err = r.disks[0].WriteAt([]byte{1}, 9000)
	must(t, err)
	e := r.cut()
	replicas := [][]byte{r.images[0].snapshot()}
	must(t, shipAll(e, replicas))
	must(t, e.Ack())
	r.close()
	r.open()
	if loss := r.disks[0].Loss(); loss.Cause != hrl.None {
		t.Fatalf("closed and opened, tracking is %v", loss)
	}
	r.close()
}

func TestALossThatNobodyCanRecordRefusesWrites(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	r.kill()
	r.logs = sealed{r.dir}
	r.open()
	r.unable = errSpace
	must(t, os.Truncate(r.dir.Path(name(0)), 0))
	for range 2 {
		if _, err := r.disks[0].WriteAt([]byte{1}, 5000); !errors.Is(err, hrl.ErrNotRecorded) {
			t.Fatalf("got %v", err)
		}
	}
	if r.images[0].snapshot()[5000] != 0 {
		t.Fatal("the write was done")
	}
	r.kill()
}

func TestALossInOneOfTwoPlacesIsEnough(t *testing.T) {
	for what, prepare := range map[string]func(r *rig){
		"the owner's records": func(r *rig) { r.kill(); r.logs = sealed{r.dir}; r.open() },
		"the log":             func(r *rig) { r.unable = errSpace },
	} {
		r := newRig(t, ample, 1<<20)
		prepare(r)
		must(t, os.Truncate(r.dir.Path(name(0)), 0))
		if _, err := r.disks[0].WriteAt([]byte{1}, 5000); err != nil {
			t.Errorf("%s can be written, and the guest was refused: %v", what, err)
		}
		r.kill()
	}
}

func TestAnImageThatFailsMakesTrackingLost(t *testing.T) {
	for _, test := range []struct {
		what string
		err  error
		do   func(d *tracking.Disk) error
		lost bool
	}{
		{"write", errIO, func(d *tracking.Disk) error { _, err := d.WriteAt([]byte{1}, 0); return err }, true},
		{"write", errSpace, func(d *tracking.Disk) error { _, err := d.WriteAt([]byte{1}, 0); return err }, false},
		{"zero", errIO, func(d *tracking.Disk) error { return d.Zero(0, 10, true) }, true},
		{"unmap", errIO, func(d *tracking.Disk) error { return d.Zero(0, 10, false) }, true},
		{"unmap", errSpace, func(d *tracking.Disk) error { return d.Trim(0, 10) }, false},
		{"flush", durable.SyncFailed(errSpace), (*tracking.Disk).Flush, true},
		{"read", errIO, func(d *tracking.Disk) error { _, err := d.ReadAt(make([]byte, 1), 0); return err }, false},
	} {
		r := newRig(t, ample, 1<<20)
		told := len(r.losses)
		r.images[0].before = func(what string, _, _ int64) error {
			if what == test.what {
				return test.err
			}
			return nil
		}
		if err := test.do(r.disks[0]); !errors.Is(err, test.err) {
			t.Errorf("%s: the caller got %v", test.what, err)
		}
		if loss := r.disks[0].Loss(); (loss.Cause == hrl.TrackingLost) != test.lost || (len(r.losses) > told) != test.lost {
			t.Errorf("%s, %v: tracking is %v, %d losses told", test.what, test.err, loss, len(r.losses)-told)
		}
		r.images[0].before = nil
		r.close()
		r.open()
		if loss := r.disks[0].Loss(); (loss.Cause == hrl.TrackingLost) != test.lost {
			t.Errorf("%s, %v: opened again tracking is %v", test.what, test.err, loss)
		}
		r.close()
	}
}

func TestOldContentThatCannotBeReadBreaksTheCutAlone(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	defer r.close()
	_, err := r.disks[0].WriteAt([]byte{1}, 0)
	must(t, err)
	e := r.cut()
	r.images[0].before = func(what string, _, _ int64) error {
		if what == "read" {
			return errIO
		}
		return nil
	}
	_, err = r.disks[0].WriteAt([]byte{2}, 0)
	must(t, err)
	if !errors.Is(e.Err(), tracking.ErrBroken) || r.disks[0].Loss().Cause != hrl.None {
		t.Fatalf("the cut is %v, tracking %v", e.Err(), r.disks[0].Loss())
	}
	r.images[0].before = nil
	must(t, e.End())
}

func TestAResyncReadsARunningDisk(t *testing.T) {
	r := newRig(t, ample, 1<<20, 1<<20)
	_, err := r.disks[0].WriteAt([]byte{1}, 0)
	must(t, err)
	_, err = r.disks[1].WriteAt([]byte{1}, 0)
	must(t, err)
	source := r.group.Source(0)
	cut, err := source.Cut(t.Context())
	must(t, err)
	r.known[0].Baselines = append(r.known[0].Baselines, cut.Since)
	must(t, source.Continuous(cut))
	if len(r.marks(0)) != 0 || len(r.marks(1)) != 1 {
		t.Fatal("Begin forgets what the pass compares, and nothing of other disks")
	}
	p := make([]byte, 1)
	if _, err := source.ReadAt(p, 0); err != nil || p[0] != 1 {
		t.Fatalf("read %d, %v", p, err)
	}
	total := int64(0)
	for e, err := range source.Extents(512, 1<<20-512) {
		must(t, err)
		if e.Offset != 512+total {
			t.Fatalf("%+v after %d bytes", e, total)
		}
		total += e.Length
	}
	if total != 1<<20-512 {
		t.Fatalf("the extents end after %d bytes", total)
	}
	_, err = r.disks[0].WriteAt([]byte{1}, 4096)
	must(t, err)
	r.kill()
	r.open()
	source = r.group.Source(0)
	if err := source.Continuous(cut); err != nil || !r.marks(0)[1] {
		t.Fatalf("a killed agent ended the resync: %v", err)
	}
	r.images[0].before = func(string, int64, int64) error { return errIO }
	if _, err := r.disks[0].WriteAt([]byte{1}, 0); err == nil {
		t.Fatal("the image did not fail")
	}
	r.images[0].before = nil
	if err := source.Continuous(cut); failure.Find(err).Reason != failure.ReasonImageChanged || !strings.Contains(err.Error(), "not known") {
		t.Fatalf("got %v", err)
	}
	again, err := source.Cut(t.Context())
	must(t, err)
	if err := source.Continuous(cut); err == nil {
		t.Error("the cut before is still continuous")
	}
	must(t, source.Continuous(again))
	must(t, source.Close())
	r.close()
}

// unusable is a directory in which no file can be had.
type unusable struct{ durable.Dir }

func (u unusable) Open(string, durable.Mode) (durable.File, error) { return nil, errIO }
func (u unusable) Create(string) (durable.File, error)             { return nil, errSpace }

func TestADiskWithoutALogIsServed(t *testing.T) {
	r := newRig(t, ample, 1<<20)
	r.close()
	r.logs = unusable{r.dir}
	r.open()
	if loss := r.losses[len(r.losses)-1]; loss.Cause != hrl.WriteFailed || r.disks[0].Loss().Cause != hrl.WriteFailed {
		t.Fatalf("told %v, tracking is %v", loss, r.disks[0].Loss())
	}
	if _, err := r.disks[0].WriteAt([]byte{1}, 5000); err != nil || r.group.Figures().Live != hrl.BlockSize {
		t.Fatalf("%+v, %v", r.group.Figures(), err)
	}
	if err := r.begin(); failure.Find(err).Reason != failure.ReasonStorageFailed {
		t.Fatalf("a resync began without a log: %v", err)
	}
	r.close()

	r.logs, r.unable = unusable{r.dir}, errSpace
	_, err := tracking.OpenLive(tracking.LiveOptions{
		ID: "root", Image: r.images[0], Logs: r.logs, Log: name(0), Known: r.known[0], Lost: r.lost,
	})
	if err == nil {
		t.Fatal("a disk is served whose loss nobody recorded")
	}
}
