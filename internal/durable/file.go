package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// NewFile is positioned I/O on an open file or block device, which the File owns from here on. Its Sync covers
// the content and the size, not the times.
func NewFile(file *os.File) File { return &hostFile{file: file} }

// hostFile is a File of the host.
type hostFile struct {
	file *os.File

	// syncMu is held over a sync: the kernel reports a lost write to one caller of an open file only, so two
	// syncs side by side could answer the one that lost its write with nil.
	syncMu sync.Mutex
	// failed is the first sync error; guarded by syncMu.
	failed error
}

// ReadAt implements File.
func (f *hostFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// WriteAt implements File.
func (f *hostFile) WriteAt(p []byte, off int64) (int, error) { return f.file.WriteAt(p, off) }

// Close implements File. It syncs nothing.
func (f *hostFile) Close() error { return f.file.Close() }

// Sync implements File.
func (f *hostFile) Sync() error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	return f.synced(syncContent(f.file))
}

// synced remembers a failed sync. The caller holds syncMu.
func (f *hostFile) synced(err error) error {
	if err != nil {
		f.failed = SyncFailed(&fs.PathError{Op: "sync", Path: f.file.Name(), Err: err})
	}
	return f.failed
}

// SyncTimes is Sync of a file's times as well, which File.Sync may leave behind. Where times mean nothing it is Sync.
func SyncTimes(file File) error {
	f, ok := file.(*hostFile)
	if !ok {
		return file.Sync()
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if f.failed != nil {
		return f.failed
	}
	return f.synced(f.file.Sync())
}

// Allocated is the space that a file takes on its filesystem, in bytes; false for a file without a descriptor, and on a
// platform that does not say.
func Allocated(file File) (int64, bool) {
	fd, ok := file.Fd()
	if !ok {
		return 0, false
	}
	return allocated(fd)
}

// Truncate implements File.
func (f *hostFile) Truncate(size int64) error { return f.file.Truncate(size) }

// Size implements File. A block device's is what its end is.
func (f *hostFile) Size() (int64, error) {
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode().IsRegular() {
		return info.Size(), nil
	}
	return f.file.Seek(0, io.SeekEnd)
}

// Allocate implements File.
func (f *hostFile) Allocate(off, n int64) error { return f.change("allocate", off, n, allocate) }

// Punch implements File.
func (f *hostFile) Punch(off, n int64) error {
	return f.change("punch", off, n, func(file *os.File, off, n int64) error {
		err := punch(file, off, n)
		if notSupported(err) {
			return f.zero(off, n)
		}
		return err
	})
}

// ZeroRange implements File.
func (f *hostFile) ZeroRange(off, n int64) error { return f.change("zero", off, n, f.zeroRange) }

func (f *hostFile) zeroRange(_ *os.File, off, n int64) error { return f.zero(off, n) }

// zero asks the filesystem for zeros, and writes them where it cannot give them.
func (f *hostFile) zero(off, n int64) error {
	err := zeroRange(f.file, off, n)
	if !notSupported(err) {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	end := min(off+n, size)
	for off < end {
		piece := zeros[:min(int64(len(zeros)), end-off)]
		if _, err := f.file.WriteAt(piece, off); err != nil {
			return err
		}
		off += int64(len(piece))
	}
	return nil
}

var zeros [64 << 10]byte

// change does one range operation; an empty range is none.
func (f *hostFile) change(op string, off, n int64, do func(*os.File, int64, int64) error) error {
	err := CheckRange(off, n)
	if err == nil && n > 0 {
		err = do(f.file, off, n)
	}
	if err != nil {
		return &fs.PathError{Op: op, Path: f.file.Name(), Err: err}
	}
	return nil
}

// SeekData implements File.
func (f *hostFile) SeekData(off int64) (start, end int64, err error) {
	size, err := f.Size()
	if err != nil {
		return 0, 0, err
	}
	if off < 0 {
		return 0, 0, &fs.PathError{Op: "seek", Path: f.file.Name(), Err: fs.ErrInvalid}
	}
	if off >= size {
		return 0, 0, io.EOF
	}
	start, end, err = seekData(f.file, off, size)
	if err != nil && err != io.EOF {
		err = &fs.PathError{Op: "seek", Path: f.file.Name(), Err: err}
	}
	return start, end, err
}

// Fd implements File.
func (f *hostFile) Fd() (uintptr, bool) { return f.file.Fd(), true }

// CheckRange refuses a negative offset or length and an end that no file can have.
func CheckRange(off, n int64) error {
	if off < 0 || n < 0 || off+n < off {
		return fmt.Errorf("range of %d bytes at %d: %w", n, off, fs.ErrInvalid)
	}
	return nil
}
