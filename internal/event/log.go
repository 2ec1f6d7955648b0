package event

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"vmreplica/internal/state"
)

const (
	// keepTime and keepCount bound what is kept.
	keepTime  = 90 * 24 * time.Hour
	keepCount = 100_000
	// prunedPerEvent is more than the one that an event adds, so that the bounds hold.
	prunedPerEvent = 16
	prunedAtOpen   = 10_000
	// listMaximum is how many events List answers at most.
	listMaximum = 1000
)

var table = state.Table[Event]{Bucket: "events"}

// Log is an agent's events. Its methods may be called concurrently.
type Log struct {
	store state.Store
	log   *slog.Logger
	now   func() time.Time

	mu sync.Mutex
	// news is closed and replaced when there are new events; guarded by mu.
	news chan struct{}
}

// Open is the log that lies in store; what is no longer to be kept is dropped from it. now is the present time.
func Open(store state.Store, log *slog.Logger, now func() time.Time) (*Log, error) {
	l := &Log{store: store, log: log, now: now, news: make(chan struct{})}
	err := store.Update(func(tx state.Tx) error {
		highest, err := newestSequence(tx)
		if err != nil {
			return err
		}
		return l.prune(tx, highest, prunedAtOpen)
	})
	if err != nil {
		return nil, fmt.Errorf("open the event log: %w", err)
	}
	return l, nil
}

// Append records e in the caller's transaction and answers it with its sequence and time. Once the transaction is
// durable the caller hands the answer to Publish.
func (l *Log) Append(tx state.Tx, e Event) (Event, error) {
	sequence, err := tx.NextSequence(table.Bucket)
	if err != nil {
		return Event{}, fmt.Errorf("number an event: %w", err)
	}
	e = e.bounded()
	e.Sequence, e.Time = sequence, l.now().UTC()
	if err := table.Put(tx, key(sequence), e); err != nil {
		return Event{}, fmt.Errorf("record event %d: %w", e.ID, err)
	}
	if err := noteNewest(tx, sequence); err != nil {
		return Event{}, err
	}
	return e, l.prune(tx, sequence, prunedPerEvent)
}

// Publish logs events that are durable by now and wakes those who watch.
func (l *Log) Publish(events ...Event) {
	for _, e := range events {
		l.log.LogAttrs(context.Background(), e.Severity.level(), e.Message, attributes(e)...)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.news)
	l.news = make(chan struct{})
}

// Record records one event that belongs to no other change.
func (l *Log) Record(e Event) error {
	var recorded Event
	err := l.store.Update(func(tx state.Tx) (err error) {
		recorded, err = l.Append(tx, e)
		return err
	})
	if err != nil {
		return err
	}
	l.Publish(recorded)
	return nil
}

// List is up to limit of the events after a sequence, oldest first: those of vm, or all when that is empty. A
// limit that is 0 or beyond 1000 is 1000.
func (l *Log) List(vm string, after uint64, limit int) ([]Event, error) {
	var events []Event
	err := l.store.View(func(tx state.Tx) (err error) {
		events, _, err = read(tx, vm, after, limit)
		return err
	})
	return events, err
}

// read is a List, and the last sequence that it has looked at.
func read(tx state.Tx, vm string, after uint64, limit int) (events []Event, last uint64, err error) {
	if limit <= 0 || limit > listMaximum {
		limit = listMaximum
	}
	last = after
	for row := range table.Rows(tx, key(after+1)) {
		if row.Err != nil {
			return nil, 0, row.Err
		}
		last = row.Record.Sequence
		if vm == "" || row.Record.VM == vm {
			events = append(events, row.Record)
		}
		if len(events) == limit {
			break
		}
	}
	return events, last, nil
}

// prune drops up to limit of the oldest events that are too old or too many.
func (l *Log) prune(tx state.Tx, highest uint64, limit int) error {
	last := highest - min(highest, keepCount) // the newest that is one too many
	var drop []string
	for row := range table.Rows(tx, "") {
		if row.Err != nil {
			return row.Err
		}
		if len(drop) == limit || row.Record.Sequence > last && l.now().Sub(row.Record.Time) < keepTime {
			break
		}
		drop = append(drop, row.Key)
	}
	for _, key := range drop {
		if err := table.Delete(tx, key); err != nil {
			return err
		}
	}
	return nil
}

// newest remembers the highest sequence, which the events themselves no longer tell when all are dropped.
var newest = state.Table[uint64]{Bucket: "event-newest"}

const newestKey = "sequence"

func noteNewest(tx state.Tx, sequence uint64) error { return newest.Put(tx, newestKey, sequence) }

func newestSequence(tx state.Tx) (uint64, error) {
	sequence, _, err := newest.Get(tx, newestKey)
	return sequence, err
}

// key sorts as the sequence does.
func key(sequence uint64) string { return fmt.Sprintf("%020d", sequence) }

func attributes(e Event) []slog.Attr {
	attrs := []slog.Attr{
		slog.Uint64("event", uint64(e.ID)), slog.String("type", e.Type), slog.Uint64("sequence", e.Sequence),
	}
	if e.VM != "" {
		attrs = append(attrs, slog.String("vm", e.VM))
	}
	if e.Disk != "" {
		attrs = append(attrs, slog.String("disk", e.Disk))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		attrs = append(attrs, slog.String(name, e.Details[name]))
	}
	return attrs
}
