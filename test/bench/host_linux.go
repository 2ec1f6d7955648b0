package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// extent is a range of a file that may hold data.
type extent struct{ start, end int64 }

// dataExtents are the ranges of a file that are not holes, in order.
func dataExtents(file *os.File) ([]extent, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var extents []extent
	for off := int64(0); off < info.Size(); {
		start, err := unix.Seek(int(file.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		end, err := unix.Seek(int(file.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		extents, off = append(extents, extent{start, end}), end
	}
	return extents, nil
}

// freeSpace is what an unprivileged program may still write below dir, in bytes.
func freeSpace(dir string) (int64, error) {
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	return int64(stat.Bavail) * stat.Bsize, err
}

// evict writes a file back and takes it out of the page cache.
func evict(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return err
	}
	return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// cached is how many bytes of a file are in the page cache; -1 where the kernel cannot say, before Linux 6.5.
func cached(path string) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	var stat unix.Cachestat_t
	err = unix.Cachestat(uint(file.Fd()), &unix.CachestatRange{}, &stat, 0)
	if errors.Is(err, unix.ENOSYS) {
		return -1, nil
	}
	return int64(stat.Cache) * int64(os.Getpagesize()), err
}
