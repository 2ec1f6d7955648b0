package vhd

import (
	"golang.org/x/sys/unix"

	"vmreplica/internal/durable"
)

// allocatedBytes is the space that the file takes on its filesystem; false for a file without a descriptor.
func allocatedBytes(file durable.File) (int64, bool) {
	fd, ok := file.Fd()
	if !ok {
		return 0, false
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return 0, false
	}
	return stat.Blocks * 512, true
}
