package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// openFlags keeps the opening of a pipe from waiting for its other end.
	openFlags      = unix.O_NONBLOCK
	directoryFlags = unix.O_DIRECTORY
)

// mapsHoles says that SeekData tells holes from data here.
const mapsHoles = true

// syncContent is fdatasync: it covers the content and whatever is needed to read it back, the size and the map
// of extents included. Only times and ownership may lag behind.
func syncContent(file *os.File) error { return onDescriptor(file, unix.Fdatasync) }

func syncDirectory(file *os.File) error { return onDescriptor(file, unix.Fsync) }

func allocate(file *os.File, off, n int64) error {
	return fallocate(file, unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func punch(file *os.File, off, n int64) error {
	return fallocate(file, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func zeroRange(file *os.File, off, n int64) error {
	return fallocate(file, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func fallocate(file *os.File, mode uint32, off, n int64) error {
	return onDescriptor(file, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

// onDescriptor calls fn with a descriptor that cannot be closed meanwhile. A call that a signal interrupted has
// reported nothing and is made again.
func onDescriptor(file *os.File, fn func(fd int) error) error {
	connection, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = connection.Control(func(fd uintptr) {
		for result = fn(int(fd)); errors.Is(result, unix.EINTR); {
			result = fn(int(fd))
		}
	})
	if err != nil {
		return fs.ErrClosed // the only reason for a descriptor not to be had
	}
	return result
}

// notSupported says whether the filesystem knows no such operation.
func notSupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// seekData asks for the next data within a file of size bytes. A filesystem without the question says EINVAL.
func seekData(file *os.File, off, size int64) (start, end int64, err error) {
	start, err = file.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF
	case errors.Is(err, unix.EINVAL), notSupported(err):
		return off, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = file.Seek(start, unix.SEEK_HOLE)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 0, 0, io.EOF // cut off since
	case err != nil:
		return 0, 0, err
	}
	return start, end, nil
}

func freeBytes(directory *os.File) (int64, error) {
	var stat unix.Statfs_t
	err := onDescriptor(directory, func(fd int) error { return unix.Fstatfs(fd, &stat) })
	if err != nil {
		return 0, err
	}
	unit := stat.Frsize
	if unit == 0 {
		unit = stat.Bsize
	}
	return int64(stat.Bavail) * unit, nil
}

// linkCount is the number of names a file has; false where that is not known.
func linkCount(info fs.FileInfo) (uint64, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(stat.Nlink), true
}

func allocated(fd uintptr) (int64, bool) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return 0, false
	}
	return stat.Blocks * 512, true
}
