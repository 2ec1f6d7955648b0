package merge

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
)

// steps does what a test takes for granted.
func steps(t *testing.T, all ...func() error) {
	t.Helper()
	for i, step := range all {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

func aLife(t *testing.T, points int) *life {
	t.Helper()
	l, err := newLife(durabletest.New(), kind{plain: true}, 4, points)
	check(t, err)
	return l
}

func pinned(t *testing.T, w *world, text string) *chain.Pin {
	t.Helper()
	pin, err := w.vm().Pin(text, "a test")
	check(t, err)
	t.Cleanup(func() { check(t, pin.Release()) })
	return pin
}

func wantPinned(t *testing.T, when string, pin *chain.Pin, want models) {
	t.Helper()
	content, err := pinContent(pin)
	check(t, err)
	if wrong := differs(content, []models{want}); wrong != "" {
		t.Errorf("%s: %s", when, wrong)
	}
}

// layers is how many layers stand on a disk.
func (w *world) layers(t *testing.T) int {
	t.Helper()
	record := recordOf(t, w)
	return len(record.Disk(diskIDs[0]).Layers)
}

// TestAPinnedNewestContentStays: what commits later is merged above it, and below it once the reader is gone.
func TestAPinnedNewestContentStays(t *testing.T) {
	for name, points := range map[string]int{"without points": 0, "above points": 1} {
		t.Run(name, func(t *testing.T) {
			l := aLife(t, points)
			steps(t, l.delta)
			if points > 0 {
				steps(t, l.seal, l.recover, l.delta)
			}
			pin := pinned(t, l.world, "")
			want := l.now
			for range 4 {
				steps(t, l.delta, l.recover)
				wantPinned(t, "after a delta", pin, want)
				wantContent(t, l.world, l.now)
			}
			if n := l.layers(t); n != points+1 {
				t.Errorf("%d layers stand there, %d points", n, points)
			}
			if !l.merger.Status(testVM).Held {
				t.Error("the status does not say that a reader holds the merge")
			}
			check(t, pin.Release())
			steps(t, l.recover)
			if n := l.layers(t); n != points || l.merger.Status(testVM).Held {
				t.Errorf("%d layers stand there after the reader has gone: %+v", n, l.merger.Status(testVM))
			}
			wantContent(t, l.world, l.now)
		})
	}
}

// TestAPinnedPointOutlivesItsResync: the commit voids the points, and their layers wait for the reader.
func TestAPinnedPointOutlivesItsResync(t *testing.T) {
	l := aLife(t, 2)
	steps(t, l.delta, l.seal, l.delta, l.recover)
	first := l.cuts[cutOf(1)]
	pin := pinned(t, l.world, string(cutOf(1)))
	if _, err := l.vm().DropPoint(cutOf(1)); failure.Find(err).Reason != failure.ReasonWrongState || !strings.Contains(err.Error(), "a test") {
		t.Errorf("a point that is read was dropped: %v", err)
	}
	steps(t, l.seal, l.resync, l.recover)
	wantPinned(t, "after a resync", pin, first)
	wantContent(t, l.world, l.now)
	if n := l.layers(t); n != 1 {
		t.Errorf("%d layers stand on the base that is read", n)
	}
	if _, err := l.vm().Pin(string(cutOf(1)), "another"); failure.Find(err).Reason != failure.ReasonNotFound {
		t.Errorf("a point that is void was pinned again: %v", err)
	}
	check(t, pin.Release())
	check(t, pin.Release())
	steps(t, l.recover)
	if n := l.layers(t); n != 0 {
		t.Errorf("%d layers are left", n)
	}
	wantContent(t, l.world, l.now)
}

// TestMergesWithinWhatIsReadGoOn: a layer that is read may be merged into another that is.
func TestMergesWithinWhatIsReadGoOn(t *testing.T) {
	l := aLife(t, 2)
	steps(t, l.delta, l.seal, l.recover, l.delta, l.delta)
	pin := pinned(t, l.world, "")
	want := l.now
	steps(t, l.recover)
	if n := l.layers(t); n != 1 {
		t.Errorf("%d layers after the merges", n)
	}
	wantPinned(t, "merged below", pin, want)
	steps(t, l.delta, l.recover)
	if n := l.layers(t); n != 2 {
		t.Errorf("%d layers after a delta above", n)
	}
	wantPinned(t, "a delta above", pin, want)
	if readers := l.vm().Readers(); len(readers) != 1 || readers[0].Who != "a test" || !readers[0].Newest {
		t.Errorf("the readers are %+v", readers)
	}
}

// TestANameThatIsUsedAnewIsNotWhatWasRead: a layer that was merged within what is read gives its name to another.
func TestANameThatIsUsedAnewIsNotWhatWasRead(t *testing.T) {
	l := aLife(t, 0)
	steps(t, l.delta, l.delta)
	pin := pinned(t, l.world, "")
	want := l.now
	steps(t, l.recover)
	l.transfer = 0
	steps(t, l.delta, l.recover)
	wantPinned(t, "under another layer of that name", pin, want)
	if n := l.layers(t); n != 1 {
		t.Errorf("%d layers wait for the reader", n)
	}
}

// TestTheEndOfAReaderWakesTheMerger without any change of the record.
func TestTheEndOfAReaderWakesTheMerger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := aLife(t, 0)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- l.merger.Run(ctx) }()
		steps(t, l.delta)
		synctest.Wait()
		pin := pinned(t, l.world, "")
		steps(t, l.delta)
		synctest.Wait()
		if l.layers(t) != 1 || !l.merger.Status(testVM).Held {
			t.Errorf("%d layers wait, %+v", l.layers(t), l.merger.Status(testVM))
		}
		check(t, pin.Release())
		synctest.Wait()
		if l.layers(t) != 0 || l.merger.Status(testVM) != (Status{}) {
			t.Errorf("%d layers are left, %+v", l.layers(t), l.merger.Status(testVM))
		}
		cancel()
		check(t, <-ended)
	})
}

// TestAReaderNeverSeesAMerge reads the view and a point all the time while layers are merged into layers and the base.
func TestAReaderNeverSeesAMerge(t *testing.T) {
	l := aLife(t, 3)
	steps(t, l.delta, l.seal, l.recover)
	point := pinned(t, l.world, string(cutOf(1)))
	for range 12 {
		steps(t, l.delta)
		if len(l.kept) < 3 {
			steps(t, l.seal, l.delta)
		} else {
			_, err := l.vm().DropPoint(l.kept[1])
			check(t, err)
			l.kept = append(l.kept[:1], l.kept[2:]...)
		}
		stop, failed := make(chan struct{}), make(chan error, 1)
		var reading sync.WaitGroup
		reading.Go(func() { failed <- l.readUntil(stop, point) })
		err := l.recover()
		close(stop)
		reading.Wait()
		check(t, errors.Join(err, <-failed))
	}
}

// readUntil compares the view and the point with what they must be, again and again.
func (l *life) readUntil(stop <-chan struct{}, point *chain.Pin) error {
	for reads := 0; ; reads++ {
		select {
		case <-stop:
			if reads > 0 {
				return nil
			}
		default:
		}
		view, err := l.view()
		if err != nil {
			return err
		}
		first, err := pinContent(point)
		if err != nil {
			return err
		}
		if wrong := differs(view, []models{l.now}) + differs(first, []models{l.cuts[cutOf(1)]}); wrong != "" {
			return errors.New(wrong)
		}
	}
}

// TestARemovalThatLeavesTheDisksMergesThePoints first, and is told who reads them.
func TestARemovalThatLeavesTheDisksMergesThePoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := aLife(t, 2)
		steps(t, l.delta, l.seal, l.recover, l.delta, l.seal, l.delta)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- l.merger.Run(ctx) }()
		synctest.Wait()
		pin := pinned(t, l.world, string(cutOf(1)))
		if _, err := l.registry.Remove(ctx, testVM, false); failure.Find(err).Reason != failure.ReasonWrongState || !strings.Contains(err.Error(), "a test") {
			t.Errorf("a removal of what is read answered %v", err)
		}
		if record := recordOf(t, l.world); len(record.Points()) != 2 {
			t.Errorf("%d points are left after a refused removal", len(record.Points()))
		}
		check(t, pin.Release())
		if _, err := l.registry.Remove(ctx, testVM, false); err != nil {
			t.Fatal(err)
		}
		cancel()
		check(t, <-ended)
		for _, id := range diskIDs {
			opened, err := l.files.OpenBase(chain.Base{File: testDir + "/" + id}, 512)
			check(t, err)
			content := make([]byte, opened.Size())
			_, err = opened.ReadAt(content, 0)
			check(t, errors.Join(err, opened.Close()))
			if at := firstDifference(content, l.now[id]); at >= 0 {
				t.Errorf("the base of %s that was left differs from the newest content at %d", id, at)
			}
		}
	})
}
