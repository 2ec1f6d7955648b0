package vhdx

import "container/list"

// pageLimit bounds the pages of the BAT and of sector bitmaps in memory: 16 MiB.
const pageLimit = 4096

// pageCache holds pages of the BAT and of sector bitmap blocks by their offset in the file. A page that is dirty, or
// held by a Flush that has not yet written it to its place, is never dropped: the file has another content there.
type pageCache struct {
	read  func(p []byte, off int64) error
	limit int
	pages map[int64]*page
	// idle are the clean pages, the most recently used first.
	idle  list.List
	dirty []*page
}

// page is 4 KiB of the file.
type page struct {
	offset      int64
	bytes       []byte
	dirty, held bool
	idle        *list.Element // nil when dirty or held
}

func newPageCache(read func([]byte, int64) error) pageCache {
	return pageCache{read: read, limit: pageLimit, pages: make(map[int64]*page)}
}

// get is the page at off, a multiple of its size.
func (c *pageCache) get(off int64) (*page, error) {
	if p := c.pages[off]; p != nil {
		if p.idle != nil {
			c.idle.MoveToFront(p.idle)
		}
		return p, nil
	}
	p := &page{offset: off, bytes: make([]byte, pageSize)}
	if err := c.read(p.bytes, off); err != nil {
		return nil, err
	}
	for len(c.pages) >= c.limit && c.idle.Len() > 0 {
		oldest := c.idle.Remove(c.idle.Back()).(*page)
		delete(c.pages, oldest.offset)
	}
	c.pages[off] = p
	p.idle = c.idle.PushFront(p)
	return p, nil
}

// change says that p's bytes are about to change.
func (c *pageCache) change(p *page) {
	if p.dirty {
		return
	}
	p.dirty = true
	c.dirty = append(c.dirty, p)
	if p.idle != nil {
		c.idle.Remove(p.idle)
		p.idle = nil
	}
}

// full says whether it is time to flush.
func (c *pageCache) full() bool { return len(c.dirty) >= c.limit/2 }

// pageImage is what a page held when it was taken for a Flush.
type pageImage struct {
	offset int64
	bytes  []byte
}

// hold takes the dirty pages for a Flush, as they are now.
func (c *pageCache) hold() (held []*page, images []pageImage) {
	held, c.dirty = c.dirty, nil
	for _, p := range held {
		p.dirty, p.held = false, true
		images = append(images, pageImage{p.offset, append([]byte(nil), p.bytes...)})
	}
	return held, images
}

// release takes back what hold gave, once the file has it.
func (c *pageCache) release(held []*page) {
	for _, p := range held {
		p.held = false
		if !p.dirty {
			p.idle = c.idle.PushFront(p)
		}
	}
}
