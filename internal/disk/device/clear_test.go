package device

import (
	"errors"
	"syscall"
	"testing"

	"vmreplica/internal/durable"
)

// span is a call that zeroed or wrote.
type span struct {
	call   string
	off, n int64
}

// file notes what is asked of it and fails the call that it is told to.
type file struct {
	durable.File
	spans []span
	fail  string
}

func (f *file) note(call string, off, n int64) error {
	f.spans = append(f.spans, span{call, off, n})
	if f.fail == call {
		return syscall.EIO
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.note("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	return len(p), f.note("write", off, int64(len(p)))
}
func (f *file) ZeroRange(off, n int64) error { return f.note("zero", off, n) }
func (f *file) Punch(off, n int64) error     { return f.note("punch", off, n) }
func (f *file) Sync() error                  { return f.note("sync", 0, 0) }

// TestAClearedRangeIsCoveredOnce asks that the pieces join, that whole sectors go to the device in bounded calls,
// and that only less than a sector is written.
func TestAClearedRangeIsCoveredOnce(t *testing.T) {
	const size = 4 << 30
	for _, sector := range []int64{512, 4096} {
		for _, r := range [][2]int64{{0, size}, {1, size - 2}, {100, 300}, {4000, 200}, {4095, 4098}, {0, 4096}, {0, 1}, {512, 512},
			{3<<30 - 1, 2}, {4096, 1<<30 + 4096}} {
			f := &file{}
			d := &Disk{file: f, size: size, sectorSize: int(sector)}
			if err := d.Unmap(r[0], r[1]); err != nil {
				t.Fatal(err)
			}
			next := r[0]
			for _, s := range f.spans {
				whole := s.off%sector == 0 && s.n%sector == 0 && s.n <= largestZeroing
				if s.off != next || s.n <= 0 || (s.call == "punch") != whole || (s.call == "write" && s.n >= sector) {
					t.Errorf("sector %d, range %v: %+v", sector, r, f.spans)
				}
				next = s.off + s.n
			}
			if next != r[0]+r[1] {
				t.Errorf("sector %d, range %v ends at %d", sector, r, next)
			}
		}
	}
}

func TestErrorsOfTheDeviceArrive(t *testing.T) {
	calls := map[string]func(d *Disk) error{
		"read":  func(d *Disk) error { _, err := d.ReadAt(make([]byte, 512), 0); return err },
		"write": func(d *Disk) error { _, err := d.WriteAt(make([]byte, 512), 0); return err },
		"zero":  func(d *Disk) error { return d.Zero(0, 1<<20) },
		"punch": func(d *Disk) error { return d.Unmap(0, 1<<20) },
		"sync":  func(d *Disk) error { return d.Flush() },
	}
	for name, call := range calls {
		f := &file{fail: name}
		d := &Disk{file: f, size: 4 << 20, sectorSize: 512}
		if err := call(d); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := &file{fail: "write"}
	d := &Disk{file: f, size: 4 << 20, sectorSize: 512}
	for _, off := range []int64{1, 0} {
		if err := d.Zero(off, 1023); !errors.Is(err, syscall.EIO) {
			t.Errorf("zeroing part of a sector at %d: %v", off, err)
		}
	}
}
