// Package pagecache reads an image once through the host's page cache and leaves the cache as it was found: a pass
// over a disk of terabytes neither pushes out what the host's machines keep there, nor pays for fresh pages, which
// may cost more than the reading itself.
//
// Vocabulary. A window is 64 MiB of a file. It is cold when the page cache held less than a sixteenth of it before it
// was read, else warm: of a window that is mostly hole no more can be cached. The lag, 320 MiB, is how far behind the
// reading a window may still be asked for. A pass ascends over a raw image; over a container, whose blocks lie anywhere,
// it is scattered.
//
// Invariants. A window is looked at before the kernel's read-ahead can reach it. Only cold windows are dropped, a lag
// after they were read, in a scattered pass after 256 MiB of reading, and the last of them at Close: what was warm
// stays. Only clean pages are dropped, so nothing is lost. Where the host does not say what it caches, everything counts
// as warm. Nothing is on disk.
package pagecache

import (
	"sync"

	"vmreplica/internal/durable"
)

const (
	// windowBytes is more than twice the largest read-ahead in use, 16 MiB where a host has set 8 and the reading is
	// sequential.
	windowBytes = 64 << 20
	// lagWindows is how many windows behind the one that is read are kept: a replica digests 256 MiB of an image ahead,
	// and may be asked again for all of it.
	lagWindows = 256<<20/windowBytes + 1
	// coldShare is the part of a window, one in so many pages, that makes it warm.
	coldShare = 16
	// before is the window before the first read: none.
	before = -2
)

// file is a durable.File whose reads drive a pass.
type file struct {
	durable.File
	cache cache

	// mu guards what follows.
	mu sync.Mutex
	// window is the highest that is being read. nextCold is what the one after it was when this one was begun.
	window   int64
	nextCold bool
	// cold are windows to be dropped, in ascending order, none above window.
	cold []int64
}

// cache is what the host's page cache does for one file. Offsets and lengths are bytes.
type cache interface {
	// cold says whether less than one in coldShare of the range's pages is cached; a range past the end is not cold.
	cold(off, n int64) bool
	// drop lets the clean pages of the range go.
	drop(off, n int64)
}

// Once gives f back for one pass in ascending order, and for reads of what lies up to the lag behind it. Reads
// elsewhere are answered too and begin a pass of their own. The kernel is told, which doubles its read-ahead. A file
// without a descriptor is given back as it is.
func Once(f durable.File) durable.File {
	fd, ok := f.Fd()
	if !ok {
		return f
	}
	adviseSequential(fd)
	return newFile(f, hostCache{fd: fd})
}

func newFile(f durable.File, c cache) *file { return &file{File: f, cache: c, window: before} }

// ReadAt reads as the file below does.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 0 && off >= 0 {
		f.reach((off + int64(len(p)) - 1) / windowBytes)
	}
	return f.File.ReadAt(p, off)
}

// reach begins the windows up to last, unless the pass is there already.
func (f *file) reach(last int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last <= f.window && last >= f.window-lagWindows {
		return
	}
	isCold := f.nextCold
	if last != f.window+1 {
		isCold = f.coldWindow(last)
	}
	if last < f.window {
		f.dropBefore(f.window + 1)
	}
	f.window = last
	if isCold {
		f.cold = append(f.cold, last)
	}
	f.nextCold = f.coldWindow(last + 1)
	f.dropBefore(last - lagWindows)
}

func (f *file) coldWindow(window int64) bool { return f.cache.cold(window*windowBytes, windowBytes) }

// dropBefore drops the cold windows below limit.
func (f *file) dropBefore(limit int64) {
	kept := 0
	for kept < len(f.cold) && f.cold[kept] < limit {
		f.cache.drop(f.cold[kept]*windowBytes, windowBytes)
		kept++
	}
	f.cold = append(f.cold[:0], f.cold[kept:]...)
}

// Close drops what is left of the pass and closes the file below.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropBefore(f.window + 1)
	if f.nextCold {
		f.cache.drop((f.window+1)*windowBytes, windowBytes)
	}
	return f.File.Close()
}
