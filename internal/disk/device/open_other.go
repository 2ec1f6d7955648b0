//go:build !linux

package device

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/failure"
)

// Open is not built for this platform.
func Open(path string, _ imagelock.Access) (*Disk, error) { return nil, unsupported(path) }

// Stamp is not built for this platform.
func Stamp(path string) (disk.Stamp, error) { return disk.Stamp{}, unsupported(path) }

func unsupported(path string) error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported,
		"block devices are not built for this platform, so that %s cannot be opened", path)
}
