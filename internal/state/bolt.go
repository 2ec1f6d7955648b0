package state

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"runtime/debug"
	"sync"
	"syscall"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"vmreplica/internal/failure"
)

// store is a Store in a bbolt file.
type store struct {
	db   *bbolt.DB
	path string

	mu sync.Mutex
	// broken is the failure after which the file is not to be trusted any more; guarded by mu.
	broken error
}

// View implements Store. fn must not wait for an Update: one that makes the file grow waits for the views.
func (s *store) View(fn func(Tx) error) error { return s.transact(false, fn) }

// Update implements Store. fn must not begin another transaction. When the commit fails for anything but want of
// space, whether it is on disk is in doubt: the store answers nothing any more, and the next Open shows which.
func (s *store) Update(fn func(Tx) error) error { return s.transact(true, fn) }

func (s *store) transact(write bool, fn func(Tx) error) error {
	if err := s.usable(); err != nil {
		return err
	}
	var tx boltTx
	err := guard(func() (err error) {
		tx.tx, err = s.db.Begin(write)
		return err
	})
	if err != nil {
		return s.failed("begin a transaction", err)
	}
	defer s.rollback(tx.tx)
	if err := fn(&tx); tx.fault == nil && err != nil {
		return err
	}
	if tx.fault != nil {
		return s.failed("read", tx.fault)
	}
	if !write {
		return nil
	}
	if err := guard(tx.tx.Commit); err != nil {
		return s.failed("commit", err)
	}
	return nil
}

// rollback ends what was not committed. After a commit there is nothing to end.
func (s *store) rollback(tx *bbolt.Tx) {
	if err := guard(tx.Rollback); err != nil && !errors.Is(err, bolterrors.ErrTxClosed) {
		s.failed("roll back", err)
	}
}

// Close implements Store. It waits for transactions that are under way.
func (s *store) Close() error {
	if err := guard(s.db.Close); err != nil {
		return fmt.Errorf("close the state file %s: %w", s.path, err)
	}
	return nil
}

func (s *store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// failed is err as a failure. All but want of space and misuse break the store: after a lost write or on a
// damaged page nothing that it would answer is certain.
func (s *store) failed(what string, err error) error {
	if full(err) {
		return failure.New(failure.Exhausted, failure.ReasonStorageFull,
			"there is no space left for the state file %s: %w", s.path, err).
			Try("Make room on its filesystem; the operation can then be repeated.")
	}
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return failure.New(failure.Internal, failure.ReasonShuttingDown, "the state file is closed: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.broken = broken(s.path, what, err)
	}
	return s.broken
}

func broken(path, what string, err error) error {
	var damage *damageError
	if errors.As(err, &damage) || corrupt(err) {
		return failure.New(failure.Corrupt, failure.ReasonStateFailed, "the state file %s is damaged: %w", path, err).
			Try("Move it away and start the agent again; then set the VMs up anew on the disks that are there. " +
				"Everything is compared and nothing is trusted.")
	}
	return failure.New(failure.Internal, failure.ReasonStateFailed,
		"the state file %s failed (%s), and nothing more is stored in it: %w", path, what, err).
		Try("Check the disk that holds it and start the agent again.")
}

func corrupt(err error) bool {
	return errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) ||
		errors.Is(err, bolterrors.ErrVersionMismatch) || errors.Is(err, bolterrors.ErrInvalidMapping)
}

// full says whether err is a write that found no space. A sync that did is another matter: what it lost is lost.
func full(err error) bool {
	var failed *fs.PathError
	noSpace := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	return noSpace && errors.As(err, &failed) && failed.Op == "write"
}

// damageError is a panic of bbolt, or a fault on a page of the mapped file.
type damageError struct{ found any }

func (e *damageError) Error() string { return fmt.Sprint(e.found) }

// guard calls into bbolt, which answers a damaged page with a panic and an unreadable one with a fault.
func guard(call func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if found := recover(); found != nil {
			err = &damageError{found}
		}
	}()
	return call()
}

// boltTx is a Tx of a bbolt transaction.
type boltTx struct {
	tx *bbolt.Tx
	// fault is the first damage met; the transaction answers it whatever its function made of a missing value.
	fault error
}

func (t *boltTx) call(fn func() error) error {
	if t.fault != nil {
		return t.fault
	}
	err := guard(fn)
	var damage *damageError
	if errors.As(err, &damage) {
		t.fault = err
	}
	return err
}

// Get implements Tx.
func (t *boltTx) Get(bucket, key string) (value []byte) {
	t.call(func() error {
		if b := t.tx.Bucket([]byte(bucket)); b != nil {
			value = copied(b.Get([]byte(key)))
		}
		return nil
	})
	return value
}

// copied is a copy of bytes of the mapped file, made here because reading them may fault; nil stays nil.
func copied(mapped []byte) []byte {
	if mapped == nil {
		return nil
	}
	return append([]byte{}, mapped...)
}

// Put implements Tx.
func (t *boltTx) Put(bucket, key string, value []byte) error {
	return t.change(bucket, func(b *bbolt.Bucket) error { return b.Put([]byte(key), value) })
}

// Delete implements Tx.
func (t *boltTx) Delete(bucket, key string) error {
	return t.change(bucket, func(b *bbolt.Bucket) error { return b.Delete([]byte(key)) })
}

// NextSequence implements Tx.
func (t *boltTx) NextSequence(bucket string) (next uint64, err error) {
	err = t.change(bucket, func(b *bbolt.Bucket) error {
		next, err = b.NextSequence()
		return err
	})
	return next, err
}

func (t *boltTx) change(bucket string, fn func(*bbolt.Bucket) error) error {
	err := t.call(func() error {
		b, err := t.tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return fn(b)
	})
	if err != nil {
		return fmt.Errorf("change bucket %s: %w", bucket, err)
	}
	return nil
}

// Entries implements Tx. Each entry is looked up anew, so that the loop may change the bucket.
func (t *boltTx) Entries(bucket, from string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for next := []byte(from); ; {
			var key, value []byte
			t.call(func() error {
				if b := t.tx.Bucket([]byte(bucket)); b != nil {
					key, value = b.Cursor().Seek(next)
					key, value = copied(key), copied(value)
				}
				return nil
			})
			if key == nil || !yield(string(key), value) {
				return
			}
			next = append(append(next[:0], key...), 0)
		}
	}
}
