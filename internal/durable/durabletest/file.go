package durabletest

import (
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"vmreplica/internal/durable"
)

// file is one handle.
type file struct {
	recorder *Recorder
	number   int
	mode     durable.Mode
	closed   bool
	// failed is the handle's first sync error.
	failed error
}

// open is a handle of a file that exists; mu is held.
func (r *Recorder) open(number int, mode durable.Mode) *file {
	r.opened[number]++
	return &file{recorder: r, number: number, mode: mode}
}

// change records one change of the content.
func (f *file) change(op Op) error {
	op.file, op.Name = f.number, f.recorder.named[f.number]
	switch {
	case f.closed:
		return fault(op.Kind.String(), op.Name, fs.ErrClosed)
	case f.mode == durable.ReadOnly:
		return fault(op.Kind.String(), op.Name, syscall.EBADF)
	}
	return f.recorder.do(op)
}

func (f *file) changeRange(kind Kind, off, n int64) error {
	if err := durable.CheckRange(off, n); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	return f.change(Op{Kind: kind, Offset: off, Len: n})
}

// content is the present content of a handle that is open.
func (f *file) content(op string) (*content, error) {
	if f.closed {
		return nil, fault(op, f.recorder.named[f.number], fs.ErrClosed)
	}
	return f.recorder.live.files[f.number], nil
}

// ReadAt implements durable.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	present, err := f.content("read")
	if err == nil && off < 0 {
		err = fs.ErrInvalid
	}
	if err == nil {
		err = f.recorder.faults.nextRead()
	}
	if err != nil {
		return 0, fault("read", f.recorder.named[f.number], err)
	}
	return present.readAt(p, off)
}

// WriteAt implements durable.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := durable.CheckRange(off, int64(len(p))); err != nil {
		return 0, err
	}
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	before := len(f.recorder.log)
	op := Op{Kind: Write, Offset: off, Len: int64(len(p)), data: append([]byte(nil), p...)}
	if err := f.change(op); err != nil {
		return f.recorder.writtenSince(before), err
	}
	return len(p), nil
}

// writtenSince is how much a failed write did; nothing when it was refused before it was recorded.
func (r *Recorder) writtenSince(position int) int {
	if len(r.log) == position {
		return 0
	}
	return len(r.log[position].data)
}

// Sync implements durable.File.
func (f *file) Sync() error {
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	if _, err := f.content("sync"); err != nil {
		return err
	}
	if f.failed == nil {
		op := Op{Kind: Sync, file: f.number, Name: f.recorder.named[f.number]}
		f.failed = durable.SyncFailed(f.recorder.do(op))
	}
	return f.failed
}

// Truncate implements durable.File.
func (f *file) Truncate(size int64) error {
	if size < 0 {
		return fmt.Errorf("truncate to %d: %w", size, fs.ErrInvalid)
	}
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	return f.change(Op{Kind: Truncate, Len: size})
}

// Size implements durable.File.
func (f *file) Size() (int64, error) {
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	present, err := f.content("stat")
	if err != nil {
		return 0, err
	}
	return present.size, nil
}

// Allocate implements durable.File.
func (f *file) Allocate(off, n int64) error { return f.changeRange(Allocate, off, n) }

// Punch implements durable.File.
func (f *file) Punch(off, n int64) error { return f.changeRange(Punch, off, n) }

// ZeroRange implements durable.File.
func (f *file) ZeroRange(off, n int64) error { return f.changeRange(Zero, off, n) }

// SeekData implements durable.File.
func (f *file) SeekData(off int64) (start, end int64, err error) {
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	present, err := f.content("seek")
	if err != nil {
		return 0, 0, err
	}
	if off < 0 {
		return 0, 0, fault("seek", f.recorder.named[f.number], fs.ErrInvalid)
	}
	if off >= present.size {
		return 0, 0, io.EOF
	}
	return present.seekData(off)
}

// Fd implements durable.File: there is none.
func (f *file) Fd() (uintptr, bool) { return 0, false }

// Close implements durable.File.
func (f *file) Close() error {
	f.recorder.mu.Lock()
	defer f.recorder.mu.Unlock()
	if f.closed {
		return fault("close", f.recorder.named[f.number], fs.ErrClosed)
	}
	f.closed = true
	f.recorder.opened[f.number]--
	f.recorder.live.forget(f.recorder.isOpen)
	return nil
}
