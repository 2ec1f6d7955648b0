package raw_test

import (
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
)

// file is a durable.File in memory, without a descriptor, that notes its calls and fails those it is told to.
type file struct {
	size  int64
	fail  map[string]error
	calls []string
	// data is where SeekData finds some, at [data, data+4096).
	data int64
}

func (f *file) call(name string) error {
	f.calls = append(f.calls, name)
	return f.fail[name]
}

func (f *file) ReadAt(p []byte, _ int64) (int, error) {
	if err := f.call("read"); err != nil {
		return len(p) / 2, err
	}
	return len(p), nil
}

func (f *file) WriteAt(p []byte, _ int64) (int, error) {
	if err := f.call("write"); err != nil {
		return len(p) / 2, err
	}
	return len(p), nil
}

func (f *file) Close() error               { return f.call("close") }
func (f *file) Sync() error                { return f.call("sync") }
func (f *file) Truncate(int64) error       { return f.call("truncate") }
func (f *file) Size() (int64, error)       { return f.size, f.fail["size"] }
func (f *file) Allocate(_, _ int64) error  { return f.call("allocate") }
func (f *file) Punch(_, _ int64) error     { return f.call("punch") }
func (f *file) ZeroRange(_, _ int64) error { return f.call("zero") }
func (f *file) Fd() (uintptr, bool)        { return 0, false }
func (f *file) SeekData(off int64) (start, end int64, err error) {
	if err := f.call("seek"); err != nil {
		return 0, 0, err
	}
	if off >= f.data+4096 {
		return 0, 0, io.EOF
	}
	return max(off, f.data), f.data + 4096, nil
}

func openFake(t *testing.T, f durable.File, access imagelock.Access) *raw.Disk {
	t.Helper()
	d, err := raw.Open(f, raw.Options{Path: "/images/a", Access: access})
	must(t, err)
	return d
}

func TestHolesAreAskedForAfterASync(t *testing.T) {
	f := &file{size: 1 << 30, data: 64 << 10}
	d := openFake(t, f, imagelock.Write)
	walk := func(off, n int64) string {
		f.calls = nil
		for _, err := range d.Extents(off, n) {
			must(t, err)
		}
		return f.calls[0]
	}
	if first := walk(0, 1<<20); first != "sync" {
		t.Errorf("the first walk began with %s", first)
	}
	if first := walk(0, 1<<20); first != "seek" {
		t.Errorf("a walk where nothing changed began with %s", first)
	}
	for name, change := range map[string]func() error{
		"write": func() error { _, err := d.WriteAt(make([]byte, 512), 1<<20); return err },
		"zero":  func() error { return d.Zero(1<<20, 512) },
		"unmap": func() error { return d.Unmap(1<<20, 512) },
	} {
		must(t, change())
		if first := walk(2<<20, 1<<20); first != "seek" {
			t.Errorf("after a %s elsewhere the walk began with %s", name, first)
		}
		if first := walk(1<<20, 512); first != "sync" {
			t.Errorf("after a %s the walk began with %s", name, first)
		}
	}
}

func TestAFailedSyncLeavesNoTrustInHoles(t *testing.T) {
	f := &file{size: 1 << 20, fail: map[string]error{"sync": syscall.EIO}}
	d := openFake(t, f, imagelock.Read)
	for range 2 {
		var found error
		for e, err := range d.Extents(0, 1<<20) {
			if err == nil {
				t.Errorf("got %+v", e)
			}
			found = err
		}
		if !errors.Is(found, syscall.EIO) {
			t.Errorf("the walk ended with %v", found)
		}
	}
	if slices.Contains(f.calls, "seek") {
		t.Error("holes were asked for")
	}
}

func TestErrorsOfTheFileArriveWithThePlace(t *testing.T) {
	calls := map[string]func(d *raw.Disk) error{
		"read":  func(d *raw.Disk) error { _, err := d.ReadAt(make([]byte, 4096), 8192); return err },
		"write": func(d *raw.Disk) error { _, err := d.WriteAt(make([]byte, 4096), 8192); return err },
		"zero":  func(d *raw.Disk) error { return d.Zero(8192, 4096) },
		"punch": func(d *raw.Disk) error { return d.Unmap(8192, 4096) },
		"sync":  func(d *raw.Disk) error { return d.Flush() },
		"close": func(d *raw.Disk) error { return d.Close() },
		"seek": func(d *raw.Disk) error {
			var found error
			for _, err := range d.Extents(0, 4096) {
				found = err
			}
			return found
		},
	}
	for name, call := range calls {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			f := &file{size: 1 << 20}
			d := openFake(t, f, imagelock.Write)
			must(t, call(d))
			f.fail = map[string]error{name: fault}
			if err := call(d); !errors.Is(err, fault) {
				t.Errorf("%s that fails with %v gave %v", name, fault, err)
			}
		}
	}
}

func TestAShortReadIsAnError(t *testing.T) {
	f := &file{size: 1 << 20, fail: map[string]error{"read": io.EOF}}
	d := openFake(t, f, imagelock.Read)
	n, err := d.ReadAt(make([]byte, 4096), 0)
	if n != 2048 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestAFilesystemThatAnswersNonsenseIsAnError(t *testing.T) {
	f := &file{size: 1 << 20, data: 0}
	d := openFake(t, &backward{f}, imagelock.Read)
	var found error
	for _, err := range d.Extents(8192, 4096) {
		found = err
	}
	if found == nil {
		t.Error("data before the place that was asked for was accepted")
	}
}

// backward answers with data before the place that was asked for.
type backward struct{ *file }

func (b *backward) SeekData(off int64) (start, end int64, err error) { return 0, 4096, nil }

func TestAFileThatCannotBeOpenedIsClosed(t *testing.T) {
	for name, f := range map[string]*file{
		"a bad size":     {size: 100},
		"an unknown one": {fail: map[string]error{"size": syscall.EIO}},
	} {
		if _, err := raw.Open(f, raw.Options{Path: "/images/a"}); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if !slices.Equal(f.calls, []string{"close"}) {
			t.Errorf("%s: calls %v", name, f.calls)
		}
	}
}

var _ disk.Image = (*raw.Disk)(nil)
