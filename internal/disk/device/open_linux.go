package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/pagecache"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Open opens, claims and locks the device at path, which is no link. Failures: IMAGE_MISSING; IMAGE_UNREADABLE
// for what is not a block device, may not be opened or has a geometry that no disk has; IMAGE_IN_USE with who
// uses it.
func Open(path string, access imagelock.Access) (*Disk, error) {
	flags := unix.O_EXCL
	if access == imagelock.Write {
		flags |= unix.O_RDWR
	}
	file, err := openDevice(path, flags)
	if err != nil {
		return nil, err
	}
	d, err := newDisk(pagecache.Once(durable.NewFile(file)), file, path, access)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return d, nil
}

// Stamp describes the device at path without claiming or locking it, after syncing what was written to it
// through the host's cache.
func Stamp(path string) (disk.Stamp, error) {
	file, err := openDevice(path, 0)
	if err != nil {
		return disk.Stamp{}, err
	}
	defer file.Close()
	if err := durable.NewFile(file).Sync(); err != nil {
		return disk.Stamp{}, unreadable(path, err)
	}
	return disk.StampOf(file.Fd())
}

func newDisk(file durable.File, host *os.File, path string, access imagelock.Access) (*Disk, error) {
	if err := imagelock.Lock(host.Fd(), path, access); err != nil {
		return nil, err
	}
	if err := checkWritable(host, path, access); err != nil {
		return nil, err
	}
	size, err := file.Size()
	if err != nil {
		return nil, unreadable(path, err)
	}
	sector, err := unix.IoctlGetInt(int(host.Fd()), unix.BLKSSZGET)
	if err != nil {
		return nil, unreadable(path, fmt.Errorf("ask for the sector size: %w", err))
	}
	if err := disk.CheckSize(size, sector); err != nil {
		return nil, unreadable(path, err)
	}
	return &Disk{file: file, path: path, size: size, sectorSize: sector, readOnly: access == imagelock.Read}, nil
}

// checkWritable asks the device, which the kernel lets be opened for writing even when it is read-only.
func checkWritable(host *os.File, path string, access imagelock.Access) error {
	if access == imagelock.Read {
		return nil
	}
	readOnly, err := unix.IoctlGetInt(int(host.Fd()), unix.BLKROGET)
	if err != nil {
		return unreadable(path, fmt.Errorf("ask whether it is read-only: %w", err))
	}
	if readOnly != 0 {
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s is read-only", path).
			Try("Make the device writable: blockdev --setrw %s", path)
	}
	return nil
}

// openDevice finds out what lies at path without opening it, which can have effects on other kinds of device,
// then opens exactly what it found, whatever lies at path by then.
func openDevice(path string, flags int) (*os.File, error) {
	found, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, cannotOpen(path, err)
	}
	defer unix.Close(found)
	var stat unix.Stat_t
	if err := unix.Fstat(found, &stat); err != nil {
		return nil, cannotOpen(path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s is not a block device", path)
	}
	fd, err := openAgain(found, flags|unix.O_NONBLOCK|unix.O_CLOEXEC)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, busy(uintptr(found), path, uint64(stat.Rdev))
	case err != nil:
		return nil, cannotOpen(path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openAgain(found, flags int) (int, error) {
	link := fmt.Sprintf("/proc/self/fd/%d", found)
	fd, err := unix.Open(link, flags, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(link, flags, 0)
	}
	return fd, err
}

func cannotOpen(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return failure.New(failure.NotFound, failure.ReasonImageMissing, "there is no device %s", path).
			Try("Activate the volume or correct the path.")
	case errors.Is(err, fs.ErrPermission):
		return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s may not be opened: %w", path, err).
			Try("Run the agent as a user who may use the device, and see that it is not read-only.")
	default:
		return unreadable(path, err)
	}
}

func unreadable(path string, err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s cannot be used as a disk: %w", path, err)
}
