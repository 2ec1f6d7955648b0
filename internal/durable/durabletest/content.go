package durabletest

import "io"

// content is one file's bytes.
type content struct {
	size  int64
	pages pages
	// modified is the recorder's clock at the last change.
	modified int64
}

func newContent() *content { return &content{pages: pages{owner: new(owner)}} }

func (c *content) clone() *content {
	return &content{size: c.size, pages: c.pages.clone(), modified: c.modified}
}

func (c *content) readAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	for done := 0; done < n; {
		at := off + int64(done)
		inPage := int(at % pageSize)
		part := p[done:min(n, done+pageSize-inPage)]
		if from := c.pages.get(at / pageSize); from != nil {
			copy(part, from.bytes[inPage:])
		} else {
			clear(part)
		}
		done += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// write puts data at off. Whole pages of it are kept as they are, not copied: data must never change again.
func (c *content) write(off int64, data []byte) {
	if len(data) == 0 {
		return
	}
	end := off + int64(len(data))
	c.pages.fill(off/pageSize, (end+pageSize-1)/pageSize, func(index int64, old *page) *page {
		start := index * pageSize
		if off <= start && start+pageSize <= end {
			return &page{bytes: data[start-off : start-off+pageSize]}
		}
		changed := c.writable(old)
		from, to := max(off, start), min(end, start+pageSize)
		copy(changed.bytes[from-start:], data[from-off:to-off])
		return changed
	})
	c.size = max(c.size, end)
}

// writable is old, or a copy of it that c may change.
func (c *content) writable(old *page) *page {
	if old != nil && old.owner == c.pages.owner {
		return old
	}
	changed := &page{owner: c.pages.owner, bytes: make([]byte, pageSize)}
	if old != nil {
		copy(changed.bytes, old.bytes)
	}
	return changed
}

// erase makes [off, off+n) read as zeros: whole pages give their space back unless keep holds them.
func (c *content) erase(off, n int64, keep bool) {
	end := off + n
	first, last := (off+pageSize-1)/pageSize, end/pageSize
	c.blank(off, min(end, first*pageSize))
	c.blank(max(off, last*pageSize), end)
	if first >= last {
		return
	}
	if keep {
		c.pages.fill(first, last, func(int64, *page) *page { return reserved })
		return
	}
	c.pages.drop(first, last)
}

// blank writes zeros into a part of one page that has content.
func (c *content) blank(from, to int64) {
	if from >= to || filled(c.pages.get(from/pageSize)) == 0 {
		return
	}
	size := c.size
	c.write(from, make([]byte, to-from))
	c.size = size
}

func (c *content) truncate(size int64) {
	if size < c.size {
		c.blank(size, min(c.size, (size+pageSize-1)/pageSize*pageSize))
		c.pages.drop((size+pageSize-1)/pageSize, 1<<62/pageSize)
	}
	c.size = size
}

// allocate takes space for [off, off+n).
func (c *content) allocate(off, n int64) {
	c.pages.fill(off/pageSize, (off+n+pageSize-1)/pageSize, func(_ int64, old *page) *page {
		if old == nil {
			return reserved
		}
		return old
	})
}

// seekData is the next range with content; what is only reserved counts as a hole, as on ext4 and XFS.
func (c *content) seekData(off int64) (start, end int64, err error) {
	first, found := c.pages.nextData(off / pageSize)
	if !found || off >= c.size || first*pageSize >= c.size {
		return 0, 0, io.EOF
	}
	last := first + 1
	for filled(c.pages.get(last)) == 1 {
		last++
	}
	return max(off, first*pageSize), min(last*pageSize, c.size), nil
}
