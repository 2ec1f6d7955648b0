//go:build !linux && !windows

package disk

import "vmreplica/internal/failure"

// StampOf is not built for this platform.
func StampOf(uintptr) (Stamp, error) {
	return Stamp{}, failure.New(failure.Unsupported, failure.ReasonUnsupported,
		"noticing that another program changed an image is not built for this platform")
}
