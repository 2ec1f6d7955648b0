package merge

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// tookOver is what may be found after a crash: before the failover the view, and after it was begun what its disks hold
// in the end.
type tookOver struct {
	before, after models
	begun         bool
}

// bases is the content of every base by itself, as another program would read it.
func (w *world) bases() (models, error) {
	record, err := w.vm().Record()
	if err != nil {
		return nil, err
	}
	content := models{}
	for _, d := range record.Disks {
		base := d.Base
		opened, err := w.files.OpenBase(base, 512)
		if err != nil {
			return nil, err
		}
		content[d.ID] = make([]byte, w.kind.bytes())
		if _, err = opened.ReadAt(content[d.ID], 0); errors.Is(err, io.EOF) {
			err = nil
		}
		if err := errors.Join(err, opened.Close()); err != nil {
			return nil, err
		}
	}
	return content, nil
}

// failoverHistory has two points, what waits above them, a transfer that is open, and then the failover.
func failoverHistory(r *durabletest.Recorder, k kind, seed uint64, point int) (from int, err error) {
	l, err := newLife(r, k, seed, 2)
	if err != nil {
		return 0, err
	}
	var at []models
	hold := func() error { at = append(at, l.now); return l.seal() }
	for i, step := range []func() error{l.delta, hold, l.delta, l.recover, l.delta, hold, l.recover, l.delta} {
		if err := step(); err != nil {
			return 0, fmt.Errorf("step %d: %w", i, err)
		}
	}
	if err := l.vm().Acquire(); err != nil {
		return 0, err
	}
	if _, err := l.receive(l.rng, 50, replication.KindDelta, l.now); err != nil {
		return 0, err
	}
	if err := l.vm().ReleaseTransfer(); err != nil {
		return 0, err
	}
	text, want := "", l.now
	if point >= 0 {
		text, want = string(l.kept[point]), at[point]
	}
	from = r.Ops()
	r.Drop(k.drop)
	r.Mark(tookOver{before: l.now, after: want})
	if _, err := l.vm().StartFailover(text, time.Unix(3000, 0)); err != nil {
		return from, err
	}
	r.Mark(tookOver{before: l.now, after: want, begun: true})
	return from, l.recover()
}

// checkFailover brings what a crash has left to its end and says what is wrong with it.
func checkFailover(crash *durabletest.Crash, k kind) error {
	w := openWorld(crash.Recorder, k)
	marks := crash.Marks()
	promised, ok := marks[len(marks)-1].(tookOver)
	if !ok {
		return nil
	}
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	if record.Failover == nil {
		if promised.begun {
			return errors.New("a failover that was answered is gone")
		}
		if _, err := w.vm().Abort(newID(50), 1); err != nil {
			return err
		}
		content, err := w.view()
		if err != nil {
			return err
		}
		if wrong := differs(content, []models{promised.before}); wrong != "" {
			return errors.New("before the failover: " + wrong)
		}
		return nil
	}
	if record.Term != 2 || record.Transfer != nil {
		return fmt.Errorf("begun with term %d and transfer %v", record.Term, record.Transfer)
	}
	if err := w.recover(); err != nil {
		return err
	}
	if record, err = w.vm().Record(); err != nil {
		return err
	}
	if record.FailingOver() || len(record.Garbage)+record.LayersToMerge() > 0 || len(record.Files()) != len(diskIDs) {
		return fmt.Errorf("the failover ended with %v, garbage %v", record.Files(), record.Garbage)
	}
	content, err := w.bases()
	if err != nil {
		return err
	}
	if wrong := differs(content, []models{promised.after}); wrong != "" {
		return errors.New("after the failover: " + wrong)
	}
	return nil
}

func failoverCrashes(k kind, seed uint64, point, every int) (tried int, err error) {
	recorder := durabletest.New()
	from, err := failoverHistory(recorder, k, seed, point)
	if err != nil {
		return 0, err
	}
	for crash := range recorder.Crashes(durabletest.Options{From: from, Every: every, Singles: 2, Random: 2}) {
		tried++
		if err := checkFailover(crash, k); err != nil {
			return tried, fmt.Errorf("%s: %w", crash, err)
		}
	}
	return tried, nil
}

// TestCrashInAFailover: at every write, to each point and to the newest content, over layers of two kinds.
func TestCrashInAFailover(t *testing.T) {
	for point := -1; point < 2; point++ {
		for name, k := range map[string]kind{"plain": {plain: true}, "qcow2": {}} {
			t.Run(fmt.Sprint(name, " to ", point), func(t *testing.T) {
				every := 1
				if !k.plain {
					every = 7
				}
				tried, err := failoverCrashes(k, uint64(point+2), point, every)
				if err != nil {
					t.Fatal(err)
				}
				if t.Logf("%d states", tried); tried < 20 {
					t.Fatalf("only %d states were tried", tried)
				}
			})
		}
	}
}

// TestCrashesFindMutantsOfAFailover: without the base's sync a crash leaves something wrong.
func TestCrashesFindMutantsOfAFailover(t *testing.T) {
	k := kind{plain: true, drop: durabletest.SyncOf(diskIDs[0])}
	if tried, err := failoverCrashes(k, 1, -1, 1); err == nil {
		t.Fatalf("%d states show nothing", tried)
	}
}

// TestAFailoverWaitsForReaders: what is read stays until its reader has gone.
func TestAFailoverWaitsForReaders(t *testing.T) {
	l := aLife(t, 2)
	steps(t, l.delta, l.seal, l.delta)
	pin := pinned(t, l.world, "")
	read := l.now
	if _, err := l.vm().StartFailover(string(l.kept[0]), time.Unix(3000, 0)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		check(t, l.recover())
		if record := recordOf(t, l.world); !record.FailingOver() || !l.merger.Status(testVM).Held {
			t.Fatal("the failover ended beside a reader")
		}
		wantPinned(t, "during the failover", pin, read)
	}
	if _, err := l.vm().Pin("", "another"); failure.Find(err).Reason != failure.ReasonFailedOver {
		t.Errorf("another reader: %v", err)
	}
	check(t, pin.Release())
	check(t, l.recover())
	content, err := l.bases()
	check(t, err)
	if wrong := differs(content, []models{l.cuts[l.kept[0]]}); wrong != "" {
		t.Error(wrong)
	}
	if err := l.vm().Acquire(); failure.Find(err).Reason != failure.ReasonFailedOver {
		t.Errorf("the machine's disks were opened: %v", err)
	}
	if doubts, err := l.vm().Doubts(); err != nil || slices.ContainsFunc(doubts, func(d string) bool { return d != "" }) {
		t.Errorf("doubts %q, %v", doubts, err)
	}
}
