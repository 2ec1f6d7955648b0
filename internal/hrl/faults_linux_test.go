package hrl_test

import (
	"errors"
	"syscall"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// faulty is a directory of the host whose k-th operation, of its files too, fails, and every one after it where the
// fault stays.
type faulty struct {
	durable.Dir
	count, at int
	stays     bool
	err       error
}

func (f *faulty) next() error {
	f.count++
	if f.count == f.at || f.stays && f.at > 0 && f.count > f.at {
		return f.err
	}
	return nil
}

func (f *faulty) Open(name string, mode durable.Mode) (durable.File, error) {
	return f.file(func() (durable.File, error) { return f.Dir.Open(name, mode) })
}

func (f *faulty) Create(name string) (durable.File, error) {
	return f.file(func() (durable.File, error) { return f.Dir.Create(name) })
}

func (f *faulty) file(open func() (durable.File, error)) (durable.File, error) {
	if err := f.next(); err != nil {
		return nil, err
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	return &faultyFile{file, f}, nil
}

func (f *faulty) Remove(name string) error { return errors.Join(f.next(), f.Dir.Remove(name)) }

func (f *faulty) Sync(name string) error {
	if err := f.next(); err != nil {
		return err
	}
	return f.Dir.Sync(name)
}

type faultyFile struct {
	durable.File
	faults *faulty
}

func (f *faultyFile) do(op func() error) error {
	if err := f.faults.next(); err != nil {
		return err
	}
	return op()
}

func (f *faultyFile) Sync() error            { return f.do(f.File.Sync) }
func (f *faultyFile) Truncate(n int64) error { return f.do(func() error { return f.File.Truncate(n) }) }
func (f *faultyFile) Allocate(off, n int64) error {
	return f.do(func() error { return f.File.Allocate(off, n) })
}

func (f *faultyFile) Size() (size int64, err error) {
	err = f.do(func() error { size, err = f.File.Size(); return err })
	return size, err
}

func (f *faultyFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(func() error { n, err = f.File.ReadAt(p, off); return err })
	return n, err
}

func (f *faultyFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do(func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

// life opens a log over dir and takes it through a resync to its closing. It answers the marks that were set, whether
// tracking was promised when they were and whether a loss that was to be recorded could not be.
func life(b *bench, dir durable.Dir) (marked int64, baseline replication.ID, unrecorded bool) {
	l, err := hrl.Open(dir, name, b.disk)
	if err != nil {
		return 0, "", true // served from memory, and the owner knows
	}
	b.disk.Opened = l.Opened()
	baseline = replication.NewID()
	err = l.Begin(baseline)
	unrecorded = errors.Is(err, hrl.ErrNotRecorded)
	for at := int64(0); at < 1<<20; at += 1 << 16 {
		must(b.t, l.Mark(at, 1))
		marked++
	}
	if err := l.Follow(baseline); errors.Is(err, hrl.ErrNotRecorded) {
		unrecorded = true
	}
	err = l.Close(b.disk.Stamp)
	return marked, baseline, unrecorded || errors.Is(err, hrl.ErrNotRecorded)
}

func TestAFailureAtEveryOperationIsLossOrNothing(t *testing.T) {
	for _, stays := range []bool{false, true} {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			for _, existing := range []bool{false, true} {
				for k := 1; failAt(t, k, fault, stays, existing); k++ {
				}
			}
		}
	}
}

// failAt says whether there was a k-th operation.
func failAt(t *testing.T, k int, fault error, stays, existing bool) bool {
	b := newBench(t)
	if existing {
		l := b.begun()
		must(t, l.Close(b.disk.Stamp))
		b.disk.Baselines = nil
	}
	faults := &faulty{Dir: b.dir, at: k, err: fault, stays: stays}
	marked, baseline, unrecorded := life(b, faults)
	if unrecorded {
		return faults.count >= k
	}
	b.disk.Baselines = []replication.ID{baseline}
	l := b.open()
	defer l.Abandon()
	if l.Loss().Cause == hrl.None && l.LiveBytes() != marked*hrl.BlockSize {
		t.Errorf("operation %d, %v, stays %t: exact with %d of %d blocks", k, fault, stays, l.LiveBytes()/hrl.BlockSize, marked)
	}
	return faults.count >= k
}

func TestALossIsRecordedOrAnsweredAtEveryFailure(t *testing.T) {
	for _, stays := range []bool{false, true} {
		for k, more := 1, true; more; k++ {
			b := newBench(t)
			l := b.begun()
			must(t, l.Close(b.disk.Stamp))
			faults := &faulty{Dir: b.dir}
			l, err := hrl.Open(faults, name, b.disk)
			must(t, err)
			b.disk.Opened = l.Opened()
			faults.count, faults.at, faults.err, faults.stays = 0, k, syscall.EIO, stays
			err = l.Lose(hrl.Loss{Cause: hrl.TrackingLost, Evidence: "the image failed"})
			if again := l.Lose(hrl.Loss{Cause: hrl.Reverted}); !errors.Is(again, err) {
				t.Errorf("operation %d: %v and then %v", k, err, again)
			}
			more = faults.count >= k
			must(t, l.Abandon())
			if l.Loss().Cause != hrl.TrackingLost {
				t.Errorf("operation %d: %v", k, l.Loss())
			}
			found := b.open()
			if err == nil && found.Loss().Cause == hrl.None {
				t.Errorf("operation %d: answered as recorded, and nothing is", k)
			}
			must(t, found.Abandon())
		}
	}
}
