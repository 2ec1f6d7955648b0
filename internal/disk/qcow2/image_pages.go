package qcow2

import (
	"container/list"
	"encoding/binary"
	"io"
)

// pageBytes bounds the memory for pages of tables and refcount blocks. Of the pages a third may be dirty.
const pageBytes = 16 << 20

// role is what a dirty page is part of; a Flush writes the two at different times.
type role uint8

const (
	countsPage role = iota
	tablePage
	roles
)

// metaPage is a page of an L2 table or refcount block, as in the file or dirty.
type metaPage struct {
	off   int64
	raw   []byte
	dirty bool
	// idle is its place among the pages that may be dropped; nil while it is dirty.
	idle *list.Element
}

// pageCache holds pages by their offset in the file. Image.mu guards it.
type pageCache struct {
	page  int64
	limit int
	pages map[int64]*metaPage
	idle  list.List // of *metaPage, the least recently used last
	dirty [roles][]*metaPage
}

func newPageCache(page int64) pageCache {
	return pageCache{page: page, limit: int(pageBytes / page), pages: make(map[int64]*metaPage)}
}

// get is the page at off, read from a file of size bytes when it is not in memory.
func (c *pageCache) get(file io.ReaderAt, size, off int64) (*metaPage, error) {
	if p := c.pages[off]; p != nil {
		if p.idle != nil {
			c.idle.MoveToFront(p.idle)
		}
		return p, nil
	}
	p := c.room()
	if err := readInside(file, size, p.raw, off); err != nil {
		return nil, err
	}
	p.off, p.idle = off, c.idle.PushFront(p)
	c.pages[off] = p
	return p, nil
}

// room is a page for new content, the least recently used one when there are enough.
func (c *pageCache) room() *metaPage {
	if len(c.pages) < c.limit || c.idle.Len() == 0 {
		return &metaPage{raw: make([]byte, c.page)}
	}
	p := c.idle.Remove(c.idle.Back()).(*metaPage)
	delete(c.pages, p.off)
	return p
}

// change says that p is being changed, as part of what.
func (c *pageCache) change(p *metaPage, what role) {
	if p.dirty {
		return
	}
	p.dirty = true
	c.idle.Remove(p.idle)
	p.idle = nil
	c.dirty[what] = append(c.dirty[what], p)
}

// clean says that the dirty pages of a role are in the file.
func (c *pageCache) clean(what role) {
	for _, p := range c.dirty[what] {
		p.dirty = false
		p.idle = c.idle.PushFront(p)
	}
	c.dirty[what] = c.dirty[what][:0]
}

// full says whether a writer must flush before it dirties more.
func (c *pageCache) full() bool { return len(c.dirty[countsPage])+len(c.dirty[tablePage]) >= c.limit/3 }

// forget drops what is remembered of [off, off+n) and is not dirty.
func (c *pageCache) forget(off, n int64) {
	for at := off; at < off+n; at += c.page {
		if p := c.pages[at]; p != nil && p.idle != nil {
			c.idle.Remove(p.idle)
			delete(c.pages, at)
		}
	}
}

// entryAt is the L2 entry at a place in a page.
func (g *geometry) entryAt(raw []byte) entry {
	e := entry{descriptor: binary.BigEndian.Uint64(raw)}
	if g.extended {
		e.subs = binary.BigEndian.Uint64(raw[8:])
	}
	return e
}

func (g *geometry) putEntry(raw []byte, e entry) {
	binary.BigEndian.PutUint64(raw, e.descriptor)
	if g.extended {
		binary.BigEndian.PutUint64(raw[8:], e.subs)
	}
}
