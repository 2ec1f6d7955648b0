package nbd_test

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/nbd"
)

func TestErrorsOfAnExport(t *testing.T) {
	path := func(err error) error { return fmt.Errorf("disk: %w", &fs.PathError{Op: "x", Path: "y", Err: err}) }
	cases := []struct {
		err  error
		want uint32
	}{
		{path(syscall.ENOSPC), enospc}, {path(syscall.EDQUOT), enospc}, {path(syscall.EFBIG), enospc},
		{path(syscall.EPERM), eperm}, {path(syscall.EACCES), eperm}, {path(syscall.EROFS), eperm},
		{path(syscall.EINVAL), einval}, {disk.ErrRange, einval},
		{path(syscall.EIO), eio}, {errors.New("whatever"), eio}, {syscall.ENOMEM, eio}, {errors.ErrUnsupported, eio},
	}
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		failWith := func(err error) {
			export.change(func() { export.before = func(string) error { return err } })
		}
		c := enter(t, one(t, nbd.Options{}, export), structured)
		for _, f := range cases {
			failWith(f.err)
			requests := []request{{command: read}, {command: write, payload: make([]byte, 512)}, {command: zeroes}}
			if structured {
				requests = append(requests, request{command: status})
			}
			for _, r := range requests {
				r.length = 512
				if got := c.do(r).err; got != f.want {
					t.Errorf("%v: command %d is answered %d, want %d", f.err, r.command, got, f.want)
				}
			}
		}
		failWith(errors.ErrUnsupported)
		if got := c.do(request{command: zeroes, flags: fastZero, length: 512}).err; got != enotsup {
			t.Errorf("zeroes that are not fast: answered %d", got)
		}
		if got := c.do(request{command: trim, length: 512}).err; got != 0 {
			t.Errorf("a trim that cannot be: answered %d", got)
		}
		failWith(nil)
		c.inStep()
	})
}

// shortReader answers fewer bytes than it was asked for, and says nothing of it.
type shortReader struct{ *memory }

func (s shortReader) ReadAt(p []byte, _ int64) (int, error) { return len(p) - 1, nil }

func (s shortReader) WriteAt(p []byte, _ int64) (int, error) { return len(p) - 1, nil }

func TestAShortAnswerOfAnExportIsAnError(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		c := enter(t, one(t, nbd.Options{}, shortReader{newMemory(diskSize)}), structured)
		if got := c.do(request{command: read, length: 512}); got.err != eio || len(got.data) != 0 {
			t.Errorf("a read is answered %d with %d bytes", got.err, len(got.data))
		}
		if got := c.do(request{command: write, length: 512, payload: make([]byte, 512)}); got.err != eio {
			t.Errorf("a write is answered %d", got.err)
		}
	})
}

// TestTheKthCallFails runs one history for each k and each error: exactly the k-th request that reaches the export
// fails, and nothing of the connection.
func TestTheKthCallFails(t *testing.T) {
	history := []request{
		{command: write, length: 4096, payload: make([]byte, 4096)}, {command: read, length: 8192},
		{command: zeroes, offset: 512, length: 512}, {command: trim, length: 512}, {command: status, length: 4096},
		{command: read, offset: 4096, length: 512},
	}
	for _, failure := range []struct {
		err  error
		want uint32
	}{{syscall.EIO, eio}, {syscall.ENOSPC, enospc}} {
		for k := range history {
			export := newMemory(diskSize)
			var calls atomic.Int64
			export.before = func(string) error {
				if calls.Add(1) == int64(k+1) {
					return failure.err
				}
				return nil
			}
			c := enter(t, one(t, nbd.Options{}, export), true)
			for i, r := range history {
				want := uint32(0)
				if i == k {
					want = failure.want
				}
				if got := c.do(r).err; got != want {
					t.Errorf("%v at call %d: request %d is answered %d", failure.err, k, i, got)
				}
			}
		}
	}
}
