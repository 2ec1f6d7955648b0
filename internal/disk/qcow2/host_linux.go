package qcow2

import (
	"golang.org/x/sys/unix"

	"vmreplica/internal/durable"
)

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
