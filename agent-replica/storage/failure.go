package storage

import (
	"errors"
	"syscall"

	"vmreplica/internal/failure"
)

// Failure is err as a failure: one that is in its chain, else STORAGE_FULL, which time may cure, for want of space,
// else STORAGE_FAILED.
func Failure(err error) error {
	var known *failure.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return failure.New(failure.Exhausted, failure.ReasonStorageFull, "the replica's storage is full: %w", err).
			Try("Free some space; it goes on by itself.")
	default:
		return failure.New(failure.Internal, failure.ReasonStorageFailed, "the replica's storage failed: %w", err).
			Try("Look into the host's log for errors of the storage, then restart the agent.")
	}
}
