package imagelock

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vmreplica/internal/failure"
)

// QEMU's rights, as distances from the two bases.
const (
	consistentRead = 0
	write          = 1
	resize         = 3

	useBase  = 100
	denyBase = 200
)

// rights are what an access uses and what it denies to others.
type rights struct{ uses, denies []int64 }

func rightsOf(access Access) rights {
	if access == Write {
		return rights{uses: []int64{consistentRead, write, resize}, denies: []int64{write, resize}}
	}
	return rights{uses: []int64{consistentRead}, denies: []int64{write, resize}}
}

// mine are the bytes locked.
func (r rights) mine() []int64 { return r.bytes(useBase, denyBase) }

// theirs are the bytes nobody else may hold.
func (r rights) theirs() []int64 { return r.bytes(denyBase, useBase) }

func (r rights) bytes(usesAt, deniesAt int64) []int64 {
	var bytes []int64
	for _, right := range r.uses {
		bytes = append(bytes, usesAt+right)
	}
	for _, right := range r.denies {
		bytes = append(bytes, deniesAt+right)
	}
	return bytes
}

func lock(fd uintptr, path string, access Access) error {
	r := rightsOf(access)
	err := take(fd, path, r.mine())
	if err == nil {
		err = check(fd, path, r.theirs())
	}
	if err != nil {
		err = errors.Join(err, release(fd, r.mine()))
	}
	return err
}

func take(fd uintptr, path string, bytes []int64) error {
	for _, b := range bytes {
		err := control(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: b, Len: 1})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return inUse(fd, path, b)
		}
		if err != nil {
			return cannotLock(path, err)
		}
	}
	return nil
}

// check asks who holds the bytes. A test for an exclusive lock meets every lock but one's own.
func check(fd uintptr, path string, bytes []int64) error {
	for _, b := range bytes {
		asked := unix.Flock_t{Type: unix.F_WRLCK, Start: b, Len: 1}
		if err := control(fd, unix.F_OFD_GETLK, &asked); err != nil {
			return cannotLock(path, err)
		}
		if asked.Type != unix.F_UNLCK {
			return inUse(fd, path, b)
		}
	}
	return nil
}

func release(fd uintptr, bytes []int64) error {
	for _, b := range bytes {
		if err := control(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: b, Len: 1}); err != nil {
			return fmt.Errorf("unlock byte %d: %w", b, err)
		}
	}
	return nil
}

// control makes one call on the locks, again when a signal interrupted it.
func control(fd uintptr, command int, lock *unix.Flock_t) error {
	lock.Whence = io.SeekStart
	err := unix.FcntlFlock(fd, command, lock)
	for errors.Is(err, unix.EINTR) {
		err = unix.FcntlFlock(fd, command, lock)
	}
	return err
}

func cannotLock(path string, err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "%s cannot be locked: %w", path, err).
		Try("Keep the image on a filesystem with file locks; NFS needs its lock service.")
}

// inUse is the failure for a byte that another program holds.
func inUse(fd uintptr, path string, b int64) error {
	what := "is open"
	if b == useBase+write || b == useBase+resize {
		what = "is open for writing"
	}
	return failure.New(failure.Precondition, failure.ReasonImageInUse, "%s %s in %s", path, what, holders(fd, b)).
		Try("Shut the virtual machine down, or end the program that has the image open, then try again.")
}
