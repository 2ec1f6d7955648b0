package event

import (
	"context"
	"iter"
	"math"

	"vmreplica/internal/failure"
	"vmreplica/internal/state"
)

// watchBatch is how many events a watcher reads at a time.
const watchBatch = 256

// Watch yields the events of vm, or all when that is empty: first those after a sequence, 0 for all that are
// kept, then each new one, until ctx ends. With fromNow only what happens from the call on is yielded, and after
// is not read. An error is the last thing that is yielded: OutOfRange when the log does not hold everything after
// the sequence, because it was dropped or because it is another log's; ctx's cause when that ended.
func (l *Log) Watch(ctx context.Context, vm string, after uint64, fromNow bool) iter.Seq2[Event, error] {
	var failed error
	if fromNow {
		failed = l.store.View(func(tx state.Tx) (err error) {
			after, err = newestSequence(tx)
			return err
		})
	}
	return func(yield func(Event, error) bool) {
		last, err := after, failed
		for err == nil && ctx.Err() == nil {
			news := l.awaited()
			var events []Event
			if events, last, err = l.next(vm, last); err != nil {
				break
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if len(events) == 0 {
				wait(ctx, news)
			}
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		yield(Event{}, err)
	}
}

// awaited is closed at the next Publish.
func (l *Log) awaited() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

func wait(ctx context.Context, news <-chan struct{}) {
	select {
	case <-news:
	case <-ctx.Done():
	}
}

// next is the next batch after a sequence, and the last sequence that was looked at.
func (l *Log) next(vm string, after uint64) (events []Event, last uint64, err error) {
	err = l.store.View(func(tx state.Tx) error {
		if err := checkKept(tx, after); err != nil {
			return err
		}
		events, last, err = read(tx, vm, after, watchBatch)
		return err
	})
	return events, last, err
}

// checkKept refuses a sequence after which events are missing.
func checkKept(tx state.Tx, after uint64) error {
	highest, err := newestSequence(tx)
	if err != nil {
		return err
	}
	if after > highest {
		return failure.New(failure.OutOfRange, failure.ReasonExpired,
			"event %d is not of this log, whose last is %d", after, highest).
			Try("The agent's state was set up anew since. Watch from the beginning.")
	}
	oldest, err := oldestSequence(tx, highest)
	if err != nil {
		return err
	}
	if after > 0 && after < oldest-1 {
		return failure.New(failure.OutOfRange, failure.ReasonExpired,
			"events after %d are no longer kept; the oldest is %d", after, oldest).
			Try("Watch from the beginning, or from a newer event.")
	}
	return nil
}

// oldestSequence is that of the oldest event that is kept; one beyond the highest when none is.
func oldestSequence(tx state.Tx, highest uint64) (uint64, error) {
	for row := range table.Rows(tx, "") {
		return row.Record.Sequence, row.Err
	}
	return min(highest, math.MaxUint64-1) + 1, nil
}
