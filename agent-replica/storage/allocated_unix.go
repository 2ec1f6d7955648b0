//go:build unix

package storage

import (
	"io/fs"
	"syscall"
)

// allocated is the space that a file takes.
func allocated(info fs.FileInfo) int64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(stat.Blocks) * 512
	}
	return info.Size()
}
