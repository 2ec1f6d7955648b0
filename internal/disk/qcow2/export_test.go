package qcow2

// SlicesInMemory is how many slices the cache and a Flush hold, and the limit.
func (o *Overlay) SlicesInMemory() (now, limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.cache.slices) + o.cache.copies, o.cache.limit
}
