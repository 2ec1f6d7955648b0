package nbd

import (
	"errors"
	"io/fs"
	"syscall"

	"vmreplica/internal/disk"
)

// errno is an error on the wire; zero is success.
type errno uint32

const (
	errPerm     errno = 1
	errIO       errno = 5
	errInval    errno = 22
	errNoSpace  errno = 28
	errOverflow errno = 75
	errNotSup   errno = 95
)

// Error is what a client shows to its user.
func (e errno) Error() string {
	switch e {
	case errPerm:
		return "the export does not allow it"
	case errInval:
		return "the request is invalid"
	case errNoSpace:
		return "no space left"
	case errOverflow:
		return "a request has at most 32 MiB"
	case errNotSup:
		return "not faster than writing"
	default:
		return "input/output error"
	}
}

// errnoOf is what a client is told of an Export's error. ENOTSUP is for zeroing that was to be fast and for
// nothing else.
func errnoOf(err error) errno {
	var own errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own
	case isAny(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG):
		return errNoSpace
	case isAny(err, fs.ErrPermission, syscall.EROFS):
		return errPerm
	case isAny(err, disk.ErrRange, syscall.EINVAL):
		return errInval
	default:
		return errIO
	}
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
