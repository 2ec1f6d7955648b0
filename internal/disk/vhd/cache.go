package vhd

import (
	"bytes"
	"container/list"
	"math/bits"
)

const (
	// cacheBytes bounds the metadata in memory, dirtyBytes what of it differs from the file before a write flushes,
	// which is 32 GiB of a densely written disk with blocks of 2 MiB.
	cacheBytes = 16 << 20
	dirtyBytes = 8 << 20
	// windowBytes is how much of the BAT is cached as one page: 2 GiB of a disk with blocks of 2 MiB.
	windowBytes = 4096
)

// page is a window of the BAT or the bitmap of a block.
type page struct {
	offset int64
	data   []byte
	// full says of a bitmap that all bits are set.
	full bool
	// dirty: data differs from the file. fresh: the block is new, nothing in the file points to it. held: a Flush
	// writes what data was.
	dirty, fresh, held bool
	// idle is the page's place among those that may be dropped; nil while it is dirty or held.
	idle *list.Element
}

// cache holds pages by their offset in the file. sparse.mu guards it.
type cache struct {
	pages map[int64]*page
	idle  list.List // of *page, the least recently used last
	dirty []*page
	// bytes of all pages, and of the dirty ones.
	bytes, dirtyBytes int64
}

func (c *cache) full() bool { return c.dirtyBytes >= dirtyBytes }

// find is the page at offset; nil when it is not in memory.
func (c *cache) find(offset int64) *page {
	p := c.pages[offset]
	if p != nil {
		c.settle(p)
	}
	return p
}

// insert adds a page, and drops idle ones beyond the bound.
func (c *cache) insert(p *page) {
	c.pages[p.offset] = p
	c.bytes += int64(len(p.data))
	for c.bytes > cacheBytes && c.idle.Len() > 0 {
		oldest := c.idle.Remove(c.idle.Back()).(*page)
		delete(c.pages, oldest.offset)
		c.bytes -= int64(len(oldest.data))
	}
	c.settle(p)
}

// settle puts a page where it belongs after its state changed or it was used.
func (c *cache) settle(p *page) {
	busy := p.dirty || p.held
	switch {
	case busy && p.idle != nil:
		c.idle.Remove(p.idle)
		p.idle = nil
	case !busy && p.idle == nil:
		p.idle = c.idle.PushFront(p)
	case !busy:
		c.idle.MoveToFront(p.idle)
	}
}

// change marks a page dirty.
func (c *cache) change(p *page) {
	if p.dirty {
		return
	}
	p.dirty = true
	c.dirty = append(c.dirty, p)
	c.dirtyBytes += int64(len(p.data))
	c.settle(p)
}

// hold takes the dirty pages for a Flush.
func (c *cache) hold() []*page {
	held := c.dirty
	c.dirty, c.dirtyBytes = nil, 0
	for _, p := range held {
		p.dirty, p.held = false, true
	}
	return held
}

// release takes back what hold gave.
func (c *cache) release(held []*page) {
	for _, p := range held {
		p.held = false
		c.settle(p)
	}
}

// allSet is a byte of a bitmap whose eight sectors are there.
const allSet = 0xff

// isFull says whether all bits of a bitmap of so many whole bytes are set.
func isFull(bitmap []byte, used int64) bool {
	return bytes.Count(bitmap[:used], []byte{allSet}) == int(used)
}

// isSet is the bit of a sector.
func isSet(bitmap []byte, sector int64) bool { return bitmap[sector/8]&(0x80>>(sector%8)) != 0 }

// bitRun is the bit of the first sector, and how many of count sectors from there on have the same.
func bitRun(bitmap []byte, first, count int64) (set bool, n int64) {
	set = isSet(bitmap, first)
	same := byte(0)
	if set {
		same = allSet
	}
	for n < count {
		at := first + n
		differing := (bitmap[at/8] ^ same) << (at % 8)
		if differing != 0 {
			return set, min(n+int64(bits.LeadingZeros8(differing)), count)
		}
		n += 8 - at%8
	}
	return set, count
}

// setBits sets count bits from first on, and says whether any was 0.
func setBits(bitmap []byte, first, count int64) (changed bool) {
	for at := first; at < first+count; {
		n := min(8-at%8, first+count-at)
		mask := byte(allSet) << (8 - n) >> (at % 8)
		changed = changed || bitmap[at/8]&mask != mask
		bitmap[at/8] |= mask
		at += n
	}
	return changed
}
