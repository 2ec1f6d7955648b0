package vhdx

// LimitPages bounds the pages in memory: with a few, they come and go and writes flush by themselves.
func (v *virtualDisk) LimitPages(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pages.limit = n
}

// PagesInMemory is how many there are.
func (v *virtualDisk) PagesInMemory() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.pages.pages)
}
