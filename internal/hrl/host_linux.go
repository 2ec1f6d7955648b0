package hrl

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapFile maps the first n bytes of an open file, shared: what is written there is in the page cache at once.
func mapFile(fd uintptr, n int64) ([]byte, error) {
	mapped, err := unix.Mmap(int(fd), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the log: %w", err)
	}
	return mapped, nil
}

// mapMemory maps n bytes of zeros that no file stands behind.
func mapMemory(n int64) ([]byte, error) {
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	mapped, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map memory for marks: %w", err)
	}
	return mapped, nil
}

func unmap(mapped []byte) error { return unix.Munmap(mapped) }

// bootID names the host's present boot.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// identify tells an open file from every other of the host.
func identify(fd uintptr) (fileID, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(fd), &stat); err != nil {
		return fileID{}, fmt.Errorf("describe the log: %w", err)
	}
	return fileID{Device: uint64(stat.Dev), Inode: stat.Ino}, nil
}

// wordsOf is mapped memory, which begins at a page, as words.
func wordsOf(mapped []byte) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(mapped))), len(mapped)/8)
}

// bytesOf is words as they lie in memory.
func bytesOf(words []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(words)*8)
}
