package event_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

// journal is a log with its store, clock and printed lines.
type journal struct {
	*event.Log
	store state.Store
	now   time.Time
	lines bytes.Buffer
}

func newJournal(t *testing.T, store state.Store) *journal {
	t.Helper()
	j := &journal{store: store, now: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)}
	log, err := event.Open(store, slog.New(slog.NewTextHandler(&j.lines, nil)), func() time.Time { return j.now })
	check(t, err)
	j.Log = log
	return j
}

func inMemory() state.Store { return statetest.New(durabletest.New()) }

// note is an event that is told by its number.
func note(vm string, n int) event.Event {
	return event.New(event.TypeResumed, vm, "", fmt.Sprint("note ", n), map[string]string{"n": fmt.Sprint(n)})
}

func sequences(events []event.Event) (numbers []uint64) {
	for _, e := range events {
		numbers = append(numbers, e.Sequence)
	}
	return numbers
}

func TestEventsAreListedInOrder(t *testing.T) {
	j := newJournal(t, inMemory())
	for n := range 6 {
		check(t, j.Record(note([]string{"web01", "db01"}[n%2], n)))
	}
	tests := []struct {
		name  string
		vm    string
		after uint64
		limit int
		want  []uint64
	}{
		{"all of them", "", 0, 0, []uint64{1, 2, 3, 4, 5, 6}},
		{"those of one VM", "db01", 0, 0, []uint64{2, 4, 6}},
		{"those after a sequence", "", 4, 0, []uint64{5, 6}},
		{"only so many", "web01", 1, 1, []uint64{3}},
		{"none after the last", "", 6, 0, nil},
		{"none of a VM that has none", "x", 0, 0, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := j.List(test.vm, test.after, test.limit)
			check(t, err)
			if !slices.Equal(sequences(got), test.want) {
				t.Errorf("listed %v, want %v", sequences(got), test.want)
			}
		})
	}
	got, err := j.List("", 1, 1)
	check(t, err)
	want := note("db01", 1)
	if e := got[0]; e.Message != want.Message || e.ID != want.ID || !e.Time.Equal(j.now) || e.Details["n"] != "1" || e.VM != "db01" {
		t.Errorf("listed %+v", e)
	}
}

func TestAnEventIsLoggedOnceItIsDurable(t *testing.T) {
	j := newJournal(t, inMemory())
	failed := errors.New("no")
	err := j.store.Update(func(tx state.Tx) error {
		_, err := j.Append(tx, note("web01", 1))
		return errors.Join(err, failed)
	})
	if !errors.Is(err, failed) || j.lines.Len() > 0 {
		t.Errorf("answered %v and logged %q", err, &j.lines)
	}
	check(t, j.Record(event.SuspendedByError("web01", "root", "IMAGE_MISSING", "the image is missing")))
	line := j.lines.String()
	for _, part := range []string{"level=ERROR", "event=32086", "sequence=1", "vm=web01", "disk=root", "reason=IMAGE_MISSING"} {
		if !strings.Contains(line, part) {
			t.Errorf("the line lacks %s: %s", part, line)
		}
	}
}

func TestTextsAreBoundedAndValid(t *testing.T) {
	j := newJournal(t, inMemory())
	check(t, j.Record(event.New(event.TypeResumed, "web01", "", strings.Repeat("ü", 5000)+"\xff", map[string]string{
		"long": strings.Repeat("x", 5000), "bad\xff": "\xff",
	})))
	got, err := j.List("", 0, 0)
	check(t, err)
	for name, text := range got[0].Details {
		if len(text) > 4096 || !utf8.ValidString(name+text) {
			t.Errorf("detail %q has %d bytes", name, len(text))
		}
	}
	if text := got[0].Message; len(text) > 4100 || !utf8.ValidString(text) {
		t.Errorf("the message has %d bytes", len(text))
	}
}

func TestEventsAreKeptNinetyDays(t *testing.T) {
	store := inMemory()
	j := newJournal(t, store)
	for n := range 40 {
		check(t, j.Record(note("web01", n)))
	}
	j.now = j.now.Add(90 * 24 * time.Hour)
	check(t, j.Record(note("web01", 40)))
	kept, err := j.List("", 0, 0)
	check(t, err)
	if len(kept) >= 40 {
		t.Errorf("%d events are kept", len(kept))
	}
	later := j.now.Add(90 * 24 * time.Hour)
	reopened, err := event.Open(store, slog.New(slog.DiscardHandler), func() time.Time { return later })
	check(t, err)
	kept, err = reopened.List("", 0, 0)
	check(t, err)
	if len(kept) != 0 {
		t.Errorf("after opening %d events are kept", len(kept))
	}
	check(t, reopened.Record(note("web01", 41)))
	kept, err = reopened.List("", 0, 0)
	check(t, err)
	if !slices.Equal(sequences(kept), []uint64{42}) {
		t.Errorf("the next event has the sequence %v", sequences(kept))
	}
}

func TestNoMoreThanAHundredThousandEventsAreKept(t *testing.T) {
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	check(t, err)
	defer store.Close()
	j := newJournal(t, store)
	check(t, store.Update(func(tx state.Tx) error {
		for n := range 100_005 {
			if _, err := j.Append(tx, note("web01", n)); err != nil {
				return err
			}
		}
		return nil
	}))
	oldest, err := j.List("", 0, 1)
	check(t, err)
	if !slices.Equal(sequences(oldest), []uint64{6}) {
		t.Errorf("the oldest is %v", sequences(oldest))
	}
}

// watched is the numbers that a watch yields until it ends, and its end.
func watched(j *journal, ctx context.Context, vm string, after uint64, fromNow bool, see func(event.Event) bool) error {
	for e, err := range j.Watch(ctx, vm, after, fromNow) {
		if err != nil {
			return err
		}
		if !see(e) {
			return nil
		}
	}
	return errors.New("the watch ended without an error")
}

func TestAWatcherSeesEveryEventOnce(t *testing.T) {
	tests := []struct {
		name    string
		vm      string
		after   uint64
		fromNow bool
		want    []uint64
	}{
		{"from the beginning", "", 0, false, []uint64{1, 2, 3, 4, 5, 6}},
		{"after a sequence", "", 2, false, []uint64{3, 4, 5, 6}},
		{"of one VM", "db01", 0, false, []uint64{2, 4, 6}},
		{"from now", "", 0, true, []uint64{4, 5, 6}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJournal(t, inMemory())
				record := func(n int) { check(t, j.Record(note([]string{"web01", "db01"}[n%2], n))) }
				for n := range 3 {
					record(n)
				}
				ctx, cancel := context.WithCancelCause(context.Background())
				ended := errors.New("enough")
				var got []uint64
				end := make(chan error)
				go func() {
					end <- watched(j, ctx, test.vm, test.after, test.fromNow, func(e event.Event) bool {
						got = append(got, e.Sequence)
						return true
					})
				}()
				synctest.Wait()
				for n := 3; n < 6; n++ {
					record(n)
					synctest.Wait()
				}
				cancel(ended)
				if err := <-end; !errors.Is(err, ended) {
					t.Errorf("the watch ended with %v", err)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("saw %v, want %v", got, test.want)
				}
			})
		})
	}
}

func TestASlowWatcherHoldsNobodyUp(t *testing.T) {
	j := newJournal(t, inMemory())
	check(t, j.Record(note("web01", 0)))
	n, seen := 0, 0
	err := watched(j, t.Context(), "", 0, false, func(e event.Event) bool {
		for ; n < 700; n++ { // while the watcher holds its first event
			check(t, j.Record(note("web01", n)))
		}
		seen++
		return seen < 701
	})
	if err != nil || seen != 701 {
		t.Errorf("saw %d, %v", seen, err)
	}
}

func TestAWatcherIsToldWhatItMissed(t *testing.T) {
	store := inMemory()
	j := newJournal(t, store)
	for n := range 3 {
		check(t, j.Record(note("web01", n)))
	}
	j.now = j.now.Add(91 * 24 * time.Hour)
	check(t, j.Record(note("web01", 3)))
	tests := []struct {
		name  string
		after uint64
		lost  bool
	}{
		{"all that is kept", 0, false},
		{"after one that was dropped", 1, true},
		{"after the last that was dropped", 3, false},
		{"after one that never was", 50, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := watched(j, t.Context(), "", test.after, false, func(e event.Event) bool { return e.Sequence != 4 })
			if lost := err != nil; lost != test.lost || lost && failure.Find(err).Class != failure.OutOfRange {
				t.Errorf("answered %v", err)
			}
		})
	}
}

// account raises a counter and records the event of it in one transaction.
func account(j *journal, n int) error {
	var recorded event.Event
	err := j.store.Update(func(tx state.Tx) (err error) {
		if recorded, err = j.Append(tx, note("web01", n)); err != nil {
			return err
		}
		return tx.Put("counter", "n", fmt.Append(nil, n))
	})
	if err == nil {
		j.Publish(recorded)
	}
	return err
}

func TestAfterAnyCrashEventAndStateAgree(t *testing.T) {
	for k := 0; ; k++ {
		recorder := durabletest.New()
		if k > 0 {
			recorder.FailAt(k, syscall.EIO)
		}
		accountFour(t, recorder)
		if k > 0 && !recorder.Faulted() {
			return
		}
		for crash := range recorder.Crashes(durabletest.Options{}) {
			promised := len(crash.Marks())
			j := newJournal(t, statetest.New(crash.Recorder))
			events, err := j.List("", 0, 0)
			check(t, err)
			counter := counted(t, j.store)
			if len(events) != counter || counter < promised || counter > promised+1 {
				t.Errorf("%s: %d events, counter %d, promised %d", crash, len(events), counter, promised)
			}
			check(t, account(j, counter+1))
			if events, _ = j.List("", uint64(counter), 0); len(events) != 1 || events[0].Sequence != uint64(counter+1) {
				t.Errorf("%s: the next event is %v", crash, sequences(events))
			}
		}
	}
}

// accountFour does four accounts, or fewer when one fails, and marks each that was done.
func accountFour(t *testing.T, recorder *durabletest.Recorder) {
	store := statetest.New(recorder)
	log, err := event.Open(store, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		return
	}
	j := &journal{Log: log, store: store}
	for n := 1; n <= 4; n++ {
		if account(j, n) != nil {
			return
		}
		recorder.Mark(n)
	}
}

func counted(t *testing.T, store state.Store) (n int) {
	t.Helper()
	check(t, store.View(func(tx state.Tx) error {
		fmt.Sscan(string(tx.Get("counter", "n")), &n)
		return nil
	}))
	return n
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
