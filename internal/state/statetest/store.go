// Package statetest is the state store in memory, and the suite that every store passes. Each Update is one
// atomic durable step in a durabletest.Recorder, so that a crash is tried before and after every commit, among
// the writes to files of the same host.
//
// Invariants. What a transaction answered is overwritten when it ends, so that a caller who keeps it is found.
package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
)

// New is the recorder's store: empty, or what a crash left of it.
func New(recorder *durabletest.Recorder) state.Store { return Named(recorder, "state") }

// Named is one of several stores of a recorder.
func Named(recorder *durabletest.Recorder, name string) state.Store {
	return &store{recorder: recorder, name: name}
}

type store struct {
	recorder *durabletest.Recorder
	name     string
	// writing is held over an Update.
	writing sync.Mutex

	mu     sync.Mutex
	broken error // guarded by mu
	closed bool  // guarded by mu
}

// snapshot is the content at one moment. Buckets are never changed once they are in one.
type snapshot map[string]*bucket

type bucket struct {
	values   map[string][]byte
	sequence uint64
}

// View implements state.Store.
func (s *store) View(fn func(state.Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.run(&tx{buckets: s.present()}, fn)
}

// Update implements state.Store.
func (s *store) Update(fn func(state.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	t := &tx{buckets: maps.Clone(s.present()), changed: map[string]bool{}}
	if t.buckets == nil {
		t.buckets = snapshot{}
	}
	if err := s.run(t, fn); err != nil {
		return err
	}
	if err := s.recorder.Step(s.name, s.name+": "+t.describe(), t.buckets); err != nil {
		return s.failed(err)
	}
	return nil
}

func (s *store) run(t *tx, fn func(state.Tx) error) error {
	defer t.end()
	return fn(t)
}

func (s *store) present() snapshot {
	present, _ := s.recorder.Value(s.name).(snapshot)
	return present
}

func (s *store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return failure.New(failure.Internal, failure.ReasonShuttingDown, "the state file is closed")
	}
	return s.broken
}

// failed breaks the store, as a lost commit does; want of space does not.
func (s *store) failed(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return failure.New(failure.Exhausted, failure.ReasonStorageFull,
			"there is no space left for the state file: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = failure.New(failure.Internal, failure.ReasonStateFailed, "the state file failed: %w", err)
	return s.broken
}

// Close implements state.Store.
func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// tx is one transaction.
type tx struct {
	buckets snapshot
	// changed are the buckets that are this transaction's own; nil in a read transaction.
	changed map[string]bool
	puts    []string
	// lent is what was answered and is overwritten at the end.
	lent  [][]byte
	ended bool
}

var (
	errReadOnly = errors.New("the transaction only reads")
	errEnded    = errors.New("the transaction has ended")
	errKey      = errors.New("a key has 1 to 32768 bytes and a bucket needs a name")
)

func (t *tx) end() {
	t.ended = true
	for _, value := range t.lent {
		for i := range value {
			value[i] = 0xdd
		}
	}
}

func (t *tx) lend(value []byte) []byte {
	lent := append([]byte{}, value...)
	t.lent = append(t.lent, lent)
	return lent
}

// Get implements state.Tx.
func (t *tx) Get(bucket, key string) []byte {
	b := t.buckets[bucket]
	if b == nil || t.ended {
		return nil
	}
	value, found := b.values[key]
	if !found {
		return nil
	}
	return t.lend(value)
}

// Put implements state.Tx.
func (t *tx) Put(bucket, key string, value []byte) error {
	if key == "" || len(key) > 32768 {
		return errKey
	}
	b, err := t.own(bucket)
	if err != nil {
		return err
	}
	b.values[key] = bytes.Clone(value)
	t.puts = append(t.puts, fmt.Sprintf("put %s/%s", bucket, key))
	return nil
}

// Delete implements state.Tx.
func (t *tx) Delete(bucket, key string) error {
	b, err := t.own(bucket)
	if err != nil {
		return err
	}
	delete(b.values, key)
	t.puts = append(t.puts, fmt.Sprintf("delete %s/%s", bucket, key))
	return nil
}

// NextSequence implements state.Tx.
func (t *tx) NextSequence(bucket string) (uint64, error) {
	b, err := t.own(bucket)
	if err != nil {
		return 0, err
	}
	b.sequence++
	return b.sequence, nil
}

// own is the bucket, made when there is none, as this transaction may change it.
func (t *tx) own(name string) (*bucket, error) {
	switch {
	case t.ended:
		return nil, errEnded
	case t.changed == nil:
		return nil, errReadOnly
	case name == "":
		return nil, errKey
	case t.changed[name]:
		return t.buckets[name], nil
	}
	owned := &bucket{values: map[string][]byte{}}
	if present := t.buckets[name]; present != nil {
		owned = &bucket{values: maps.Clone(present.values), sequence: present.sequence}
	}
	t.buckets[name], t.changed[name] = owned, true
	return owned, nil
}

// Entries implements state.Tx. A key that the loop deletes before its turn is not yielded.
func (t *tx) Entries(bucket, from string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if t.buckets[bucket] == nil {
			return
		}
		for _, key := range slices.Sorted(maps.Keys(t.buckets[bucket].values)) {
			if key < from {
				continue
			}
			if value := t.Get(bucket, key); value != nil && !yield(key, value) {
				return
			}
		}
	}
}

func (t *tx) describe() string {
	if len(t.puts) == 0 {
		return "nothing"
	}
	return strings.Join(t.puts, ", ")
}
