package pagecache

import (
	"sync"

	"vmreplica/internal/durable"
)

const (
	// dropAfter is how much is read between two drops of a scattered pass.
	dropAfter = 256 << 20
	// maxWindows bounds what is remembered: a byte for each window of a file of 64 TiB. What lies beyond counts as warm.
	maxWindows = 1 << 20
)

// What is known of a window in a scattered pass.
const (
	unknown = iota
	warm
	cold
	// due windows are cold and were read since the last drop.
	due
)

// scattered is a durable.File that is read in any order.
type scattered struct {
	durable.File
	cache cache

	// mu guards what follows.
	mu sync.Mutex
	// windows says what is known of each, as it was before the pass came near.
	windows []byte
	// list are the windows that are due, bytes what was read since the last drop.
	list  []int64
	bytes int64
}

// Scattered gives f back for one pass over a container, whose places are in no order: what is read lies anywhere, and
// each place is read about once. Windows are looked at once, when they are first come near; the cold ones among those
// that were read are dropped together, each 256 MiB and at Close, so that blocks in random order cost no more than
// others. A file without a descriptor is given back as it is.
func Scattered(f durable.File) durable.File {
	fd, ok := f.Fd()
	if !ok {
		return f
	}
	adviseSequential(fd)
	return newScattered(f, hostCache{fd: fd})
}

func newScattered(f durable.File, c cache) *scattered { return &scattered{File: f, cache: c} }

// ReadAt reads as the file below does.
func (s *scattered) ReadAt(p []byte, off int64) (int, error) {
	if len(p) > 0 && off >= 0 {
		s.reach(off, int64(len(p)))
	}
	return s.File.ReadAt(p, off)
}

// reach notes what is about to be read, and the window behind it, which read-ahead may come into.
func (s *scattered) reach(off, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes += n; s.bytes >= dropAfter {
		s.drop()
	}
	for window := off / windowBytes; window <= (off+n-1)/windowBytes+1 && window < maxWindows; window++ {
		s.touch(window)
	}
}

func (s *scattered) touch(window int64) {
	if missing := window + 1 - int64(len(s.windows)); missing > 0 {
		s.windows = append(s.windows, make([]byte, missing)...)
	}
	if s.windows[window] == unknown {
		s.windows[window] = warm
		if s.cache.cold(window*windowBytes, windowBytes) {
			s.windows[window] = cold
		}
	}
	if s.windows[window] == cold {
		s.windows[window] = due
		s.list = append(s.list, window)
	}
}

func (s *scattered) drop() {
	for _, window := range s.list {
		s.cache.drop(window*windowBytes, windowBytes)
		s.windows[window] = cold
	}
	s.list, s.bytes = s.list[:0], 0
}

// Close drops what is due and closes the file below.
func (s *scattered) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return s.File.Close()
}
