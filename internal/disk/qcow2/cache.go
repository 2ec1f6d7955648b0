package qcow2

import (
	"container/list"
	"encoding/binary"
	"fmt"
)

// slice is 4 KiB of an L2 table. Overlay.mu guards it.
type slice struct {
	index   int64
	entries *[sliceEntries]entry
	// dirty: entries differ from the file. held: a Flush is writing entries, so they must not change in place.
	dirty, held bool
	// loading is closed when the read of the slice ended; nil when there is none. err is how it ended.
	loading chan struct{}
	err     error
	// idle is the slice's place among those that may be dropped; nil while it is dirty, held or loading.
	idle *list.Element
}

// cache holds slices. At most limit of them are in memory: a third may be dirty, another third is what a Flush
// holds of them while writers dirty as many again, and the rest is left to readers.
type cache struct {
	limit  int
	slices map[int64]*slice
	idle   list.List // of *slice, the least recently used last
	dirty  []*slice
	// copies counts what only a Flush still holds, because writers went on with a copy.
	copies int
}

// full says whether a writer must flush before it dirties another slice.
func (c *cache) full() bool { return len(c.dirty) >= c.limit/3 }

func (c *cache) insert(s *slice) {
	c.trim(1)
	c.slices[s.index] = s
	c.settle(s)
}

// trim drops idle slices, the least recently used first, until n more stay within the limit.
func (c *cache) trim(n int) {
	for len(c.slices)+c.copies+n > c.limit && c.idle.Len() > 0 {
		oldest := c.idle.Remove(c.idle.Back()).(*slice)
		delete(c.slices, oldest.index)
	}
}

// settle puts a slice where it belongs after its state changed or it was used.
func (c *cache) settle(s *slice) {
	busy := s.dirty || s.held || s.loading != nil
	switch {
	case busy && s.idle != nil:
		c.idle.Remove(s.idle)
		s.idle = nil
	case !busy && s.idle == nil:
		s.idle = c.idle.PushFront(s)
	case !busy:
		c.idle.MoveToFront(s.idle)
	}
}

// change is where the entries of s may be written: it marks s dirty, and leaves what a Flush holds untouched.
func (c *cache) change(s *slice) *[sliceEntries]entry {
	if s.held {
		copied := *s.entries
		s.entries, s.held = &copied, false
		c.copies++
		c.trim(0)
	}
	if !s.dirty {
		s.dirty = true
		c.dirty = append(c.dirty, s)
		c.settle(s)
	}
	return s.entries
}

// hold takes the dirty slices for a Flush.
func (c *cache) hold() []*slice {
	held := c.dirty
	c.dirty = nil
	for _, s := range held {
		s.dirty, s.held = false, true
	}
	return held
}

// release takes back what hold gave and nobody changed since.
func (c *cache) release(held []*slice) {
	c.copies = 0
	for _, s := range held {
		s.held = false
		c.settle(s)
	}
}

// acquire returns with mu held. The slice is nil, and all its entries empty, where the disk has no L2 table. On an
// error mu is not held.
func (o *Overlay) acquire(index int64) (*slice, error) {
	o.mu.Lock()
	for {
		s := o.cache.slices[index]
		table := int64(o.l1[index/tableSlices] & maskOffset)
		switch {
		case s == nil && table == 0:
			return nil, nil
		case s == nil:
			s = &slice{index: index, loading: make(chan struct{})}
			o.cache.insert(s)
			o.mu.Unlock()
			o.load(s, table+index%tableSlices*sliceSize)
			o.mu.Lock()
		case s.loading != nil:
			done := s.loading
			o.mu.Unlock()
			<-done
			o.mu.Lock()
		default:
			o.cache.settle(s)
			return s, nil
		}
		if s.err != nil {
			o.mu.Unlock()
			return nil, s.err
		}
	}
}

// load reads a slice that acquire put into the cache. One that cannot be read leaves it again.
func (o *Overlay) load(s *slice, off int64) {
	entries, err := o.readSlice(off)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		err = o.checkSlice(s.index, entries)
	}
	close(s.loading)
	s.loading, s.entries, s.err = nil, entries, err
	if err != nil {
		delete(o.cache.slices, s.index)
		return
	}
	o.cache.settle(s)
}

func (o *Overlay) readSlice(off int64) (*[sliceEntries]entry, error) {
	var raw [sliceSize]byte
	if err := o.readFile(raw[:], off); err != nil {
		return nil, fmt.Errorf("read L2 table at %d: %w", off, err)
	}
	entries := new([sliceEntries]entry)
	for i := range entries {
		entries[i].descriptor = binary.BigEndian.Uint64(raw[i*16:])
		entries[i].subs = binary.BigEndian.Uint64(raw[i*16+8:])
	}
	return entries, nil
}

// checkSlice refuses entries that point outside the file or at a table, and those that are none of ours.
func (o *Overlay) checkSlice(index int64, entries *[sliceEntries]entry) error {
	for i, e := range entries {
		if e == (entry{}) {
			continue
		}
		cluster := index*sliceEntries + int64(i)
		_, isTable := o.metadata[e.host()/clusterSize]
		switch {
		case e.descriptor&flagCompressed != 0:
			return unsupported("cluster %d is compressed", cluster)
		case e.descriptor&^maskTablePoint != 0 || e.data()&e.zero() != 0:
			return corrupt("cluster %d has the L2 entry %#x %#x", cluster, e.descriptor, e.subs)
		case e.host() == 0 && (e.data() != 0 || e.descriptor != 0):
			return corrupt("cluster %d has data but no place in the file", cluster)
		case e.host() == 0:
		case e.descriptor&flagCopied == 0:
			return unsupported("cluster %d is shared with a snapshot", cluster)
		case isTable || o.inTopTable(e.host()) || !insideFile(e.host(), clusterSize, o.grown*clusterSize):
			return corrupt("cluster %d is placed at %d of the file", cluster, e.host())
		}
	}
	return nil
}
