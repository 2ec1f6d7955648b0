package durable

import "sync"

// Unsynced is the range of a file that changed since its last sync began: one range around all of it, so that a walk
// over the file's holes far ahead of the writes needs no sync. Filesystems have told of holes where unwritten data was
// still in memory. Its methods may be called concurrently.
type Unsynced struct {
	mu         sync.Mutex
	start, end int64
}

// Add says that [off, off+n) has changed. A change is added when it is complete; one still under way is no concern of a
// walk, which never meets a change of the range it walks.
func (u *Unsynced) Add(off, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start == u.end {
		u.start, u.end = off, off+n
		return
	}
	u.start, u.end = min(u.start, off), max(u.end, off+n)
}

// Settle calls sync when [off, off+n) meets what has changed, so that SeekData can be believed there. What a failed sync
// was to cover stays changed. It does nothing on a platform that does not tell holes from data.
func (u *Unsynced) Settle(off, n int64, sync func() error) error {
	start, end := u.take(off, n)
	if start == end || !mapsHoles {
		return nil
	}
	if err := sync(); err != nil {
		u.Add(start, end-start)
		return err
	}
	return nil
}

// take empties the range when it meets [off, off+n), and answers what it was; nothing when it does not.
func (u *Unsynced) take(off, n int64) (start, end int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.start >= off+n || u.end <= off {
		return 0, 0
	}
	start, end = u.start, u.end
	u.start, u.end = 0, 0
	return start, end
}
