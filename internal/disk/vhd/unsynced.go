package vhd

import "sync"

// unsynced is the range of the disk that changed since the last sync of the file began: one range around all of it,
// so that a walk far ahead of the writes needs no sync. Filesystems have told of holes where unwritten data was
// still in memory.
type unsynced struct {
	mu         sync.Mutex
	start, end int64
}

func (u *unsynced) add(off, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start == u.end {
		u.start, u.end = off, off+n
		return
	}
	u.start, u.end = min(u.start, off), max(u.end, off+n)
}

// take empties the range when it meets [off, off+n), and says whether it did.
func (u *unsynced) take(off, n int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start >= off+n || u.end <= off {
		return false
	}
	u.start, u.end = 0, 0
	return true
}
