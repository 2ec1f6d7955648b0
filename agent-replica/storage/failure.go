package storage

import (
	"errors"
	"syscall"

	"vmreplica/internal/failure"
)

// Failure is err as a failure: STORAGE_FULL, which time may cure, for want of space; else one that is in its chain,
// unless it calls an image unreadable for an error of the host's; else STORAGE_FAILED.
func Failure(err error) error {
	var known *failure.Error
	var host syscall.Errno
	full := isFull(err)
	found := errors.As(err, &known)
	switch {
	case err == nil:
		return nil
	case found && (known.Reason == failure.ReasonStorageFull ||
		!full && (known.Reason != failure.ReasonImageUnreadable || !errors.As(err, &host))):
		return err
	case full:
		return failure.New(failure.Exhausted, failure.ReasonStorageFull, "the replica's storage is full: %w", err).
			Try("Free some space; it goes on by itself.")
	default:
		return failure.New(failure.Internal, failure.ReasonStorageFailed, "the replica's storage failed: %w", err).
			Try("Look into the host's log for errors of the storage, then repeat what failed; restart the agent if it stays.")
	}
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
