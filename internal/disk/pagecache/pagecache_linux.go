package pagecache

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hostCache asks and advises the kernel. Advice that is refused costs speed only.
type hostCache struct{ fd uintptr }

func (c hostCache) cold(off, n int64) bool {
	end, err := unix.Seek(int(c.fd), 0, unix.SEEK_END)
	if n = min(n, end-off); err != nil || n <= 0 {
		return false
	}
	cached, all, err := c.resident(off, n)
	return err == nil && coldShare*cached < all
}

// resident maps the range without touching it and counts its pages, and those that are in memory. The kernel tells only
// who may write the file, or owns it; to others every page is.
func (c hostCache) resident(off, n int64) (cached, all int, err error) {
	mapped, err := unix.Mmap(int(c.fd), off, int(n), unix.PROT_NONE, unix.MAP_SHARED)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = unix.Munmap(mapped) }()
	pages := make([]byte, (n+int64(os.Getpagesize())-1)/int64(os.Getpagesize()))
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(mapped))), uintptr(n),
		uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	if errno != 0 {
		return 0, 0, errno
	}
	for _, page := range pages {
		cached += int(page & 1)
	}
	return cached, len(pages), nil
}

func (c hostCache) drop(off, n int64) { _ = unix.Fadvise(int(c.fd), off, n, unix.FADV_DONTNEED) }

func adviseSequential(fd uintptr) { _ = unix.Fadvise(int(fd), 0, 0, unix.FADV_SEQUENTIAL) }
