package chain

import (
	"errors"
	"sync"
	"sync/atomic"

	"vmreplica/internal/disk"
)

// writtenBase is an open base that knows whether it was written to, and that asks for no sync after one has failed.
type writtenBase struct {
	disk.Disk
	written atomic.Bool

	mu     sync.Mutex
	failed error
}

// WriteAt is the base's.
func (b *writtenBase) WriteAt(p []byte, off int64) (int, error) {
	b.written.Store(true)
	return b.Disk.WriteAt(p, off)
}

// Zero is the base's.
func (b *writtenBase) Zero(off, n int64) error {
	b.written.Store(true)
	return b.Disk.Zero(off, n)
}

// Unmap is the base's.
func (b *writtenBase) Unmap(off, n int64) error {
	b.written.Store(true)
	return b.Disk.Unmap(off, n)
}

// Flush makes what was written durable. Its first error is final.
func (b *writtenBase) Flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = b.Disk.Flush()
	}
	return b.failed
}

// setIdentity replaces the base's identity where its format has one. Its first error is final.
func (b *writtenBase) setIdentity(identity disk.Identity) error {
	base, ok := b.Disk.(disk.Identified)
	if !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.written.Store(true)
		b.failed = base.SetIdentity(identity)
	}
	return b.failed
}

// settle makes the file what it will be when it is closed, durably: a format may have more to write at its end. From
// here its stamp stays until the next write. The first error is final.
func (b *writtenBase) settle() error {
	if err := b.Flush(); err != nil {
		return err
	}
	base, ok := b.Disk.(disk.Stamper)
	if !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := base.Stamp(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		b.failed = err
	}
	return b.failed
}

// lost says that a sync of the base has failed.
func (b *writtenBase) lost() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed != nil
}
