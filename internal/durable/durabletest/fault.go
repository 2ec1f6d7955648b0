package durabletest

import "path"

// SyncOf is a mutant for Drop: no Sync of a file whose last name matches pattern, as path.Match, is done.
func SyncOf(pattern string) func(Op) bool { return dropped(Sync, pattern) }

// SyncDirOf is a mutant for Drop: no sync of a directory whose last name matches pattern is done.
func SyncDirOf(pattern string) func(Op) bool { return dropped(SyncDir, pattern) }

func dropped(kind Kind, pattern string) func(Op) bool {
	return func(op Op) bool {
		matches, err := path.Match(pattern, path.Base(op.Name))
		return err == nil && matches && op.Kind == kind
	}
}

// faults decides which operations fail.
type faults struct {
	ops, reads     int
	at, from, read int
	atErr, fromErr error
	readErr        error
	met            bool
}

// next counts an operation and is its error.
func (f *faults) next() error {
	f.ops++
	switch {
	case f.at == f.ops:
		f.met = true
		return f.atErr
	case f.from > 0 && f.ops >= f.from:
		f.met = true
		return f.fromErr
	}
	return nil
}

// nextRead counts a read and is its error.
func (f *faults) nextRead() error {
	f.reads++
	if f.read == f.reads {
		f.met = true
		return f.readErr
	}
	return nil
}

// FailAt makes the k-th operation from the start, counted from 1, answer err; wrapped in Short, a write does its
// first half.
func (r *Recorder) FailAt(k int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults.at, r.faults.atErr = k, err
}

// FailFrom makes the k-th operation and every later one answer err.
func (r *Recorder) FailFrom(k int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults.from, r.faults.fromErr = k, err
}

// FailRead makes the k-th ReadAt, counted from 1, answer err.
func (r *Recorder) FailRead(k int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults.read, r.faults.readErr = k, err
}

// Faulted says whether a fault that was asked for was met.
func (r *Recorder) Faulted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults.met
}

// Ops is the number of operations so far, those that failed included.
func (r *Recorder) Ops() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults.ops
}

// Reads is the number of calls of ReadAt so far.
func (r *Recorder) Reads() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults.reads
}

// Short is a fault that lets a write do its first half and then answers err.
func Short(err error) error { return &shortWrite{err} }

type shortWrite struct{ err error }

func (s *shortWrite) Error() string { return s.err.Error() + " after a part" }
func (s *shortWrite) Unwrap() error { return s.err }

// shortened is how much of a failed operation's data is written.
func shortened(op *Op) int {
	if _, short := op.Err.(*shortWrite); short {
		return len(op.data) / 2
	}
	return 0
}
