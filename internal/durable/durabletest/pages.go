package durabletest

// pageSize is the unit in which content is held and space is counted.
const pageSize = 4096

const (
	fanBits = 6
	fan     = 1 << fanBits
)

// owner tells whose nodes may be changed in place; it must not be of size zero, or all would be one.
type owner struct{ _ byte }

// page is 4 KiB of content. A page without an owner is never changed.
type page struct {
	owner *owner
	bytes []byte
}

// reserved is space without content.
var reserved = &page{bytes: make([]byte, pageSize)}

// node is a part of a tree of pages: at height 0 it holds pages, above it nodes. Nodes are shared between trees
// and changed only by their owner. space counts the pages held, data those among them with content.
type node struct {
	owner       *owner
	space, data int64
	pages       []*page
	nodes       []*node
}

// pages is a sparse sequence of pages; a copy made by clone costs nothing until one of the two is changed.
type pages struct {
	owner  *owner
	height int
	root   *node
}

// span is the number of pages below one slot of a node at height.
func span(height int) int64 { return 1 << (fanBits * height) }

func (p *pages) clone() pages {
	p.owner = new(owner)
	return pages{owner: new(owner), height: p.height, root: p.root}
}

// space is the number of pages that take space.
func (p *pages) space() int64 {
	if p.root == nil {
		return 0
	}
	return p.root.space
}

func (p *pages) get(index int64) *page {
	if index >= span(p.height+1) {
		return nil
	}
	at := p.root
	for height := p.height; at != nil; height-- {
		slot := index >> (fanBits * height) & (fan - 1)
		if height == 0 {
			return at.pages[slot]
		}
		at = at.nodes[slot]
	}
	return nil
}

// grow makes the tree high enough for index.
func (p *pages) grow(index int64) {
	for index >= span(p.height+1) {
		p.height++
		if p.root == nil {
			continue
		}
		above := &node{owner: p.owner, space: p.root.space, data: p.root.data, nodes: make([]*node, fan)}
		above.nodes[0] = p.root
		p.root = above
	}
}

// fill sets every page of [from, to) to what choose answers for it.
func (p *pages) fill(from, to int64, choose func(index int64, old *page) *page) {
	if from < to {
		p.grow(to - 1)
		p.root = p.change(p.root, p.height, 0, from, to, choose)
	}
}

// change is a node with the pages of [from, to) replaced; base is the index of its first page.
func (p *pages) change(
	at *node, height int, base, from, to int64, choose func(int64, *page) *page,
) *node {
	at = p.own(at, height)
	first := max(from-base, 0) >> (fanBits * height)
	last := min((to-1-base)>>(fanBits*height), fan-1)
	for slot := first; slot <= last; slot++ {
		if height == 0 {
			at.replacePage(slot, choose(base+slot, at.pages[slot]))
			continue
		}
		below := at.nodes[slot]
		at.replaceNode(slot, p.change(below, height-1, base+slot*span(height), from, to, choose))
	}
	return at
}

// own is at, or a copy that p may change.
func (p *pages) own(at *node, height int) *node {
	switch {
	case at == nil && height == 0:
		return &node{owner: p.owner, pages: make([]*page, fan)}
	case at == nil:
		return &node{owner: p.owner, nodes: make([]*node, fan)}
	case at.owner == p.owner:
		return at
	}
	copied := &node{owner: p.owner, space: at.space, data: at.data}
	copied.pages = append([]*page(nil), at.pages...)
	copied.nodes = append([]*node(nil), at.nodes...)
	return copied
}

func (n *node) replacePage(slot int64, new *page) {
	old := n.pages[slot]
	n.pages[slot] = new
	n.space += held(new) - held(old)
	n.data += filled(new) - filled(old)
}

func (n *node) replaceNode(slot int64, new *node) {
	// What change answers may be the old node itself, changed in place, so the sums are taken anew.
	n.nodes[slot] = new
	n.space, n.data = 0, 0
	for _, below := range n.nodes {
		if below != nil {
			n.space += below.space
			n.data += below.data
		}
	}
}

func held(p *page) int64 {
	if p == nil {
		return 0
	}
	return 1
}

func filled(p *page) int64 {
	if p == nil || p == reserved {
		return 0
	}
	return 1
}

// drop empties [from, to). Whole nodes go at once, so the length does not matter.
func (p *pages) drop(from, to int64) {
	if to = min(to, span(p.height+1)); from < to && p.root != nil {
		p.root = p.without(p.root, p.height, 0, from, to)
	}
}

func (p *pages) without(at *node, height int, base, from, to int64) *node {
	if at == nil || from <= base && base+span(height+1) <= to {
		return nil
	}
	at = p.own(at, height)
	first := max(from-base, 0) >> (fanBits * height)
	last := min((to-1-base)>>(fanBits*height), fan-1)
	for slot := first; slot <= last; slot++ {
		if height == 0 {
			at.replacePage(slot, nil)
			continue
		}
		at.replaceNode(slot, p.without(at.nodes[slot], height-1, base+slot*span(height), from, to))
	}
	return at
}

// nextData is the first page with content at or after index; false when there is none.
func (p *pages) nextData(index int64) (int64, bool) {
	if index >= span(p.height+1) {
		return 0, false
	}
	return seek(p.root, p.height, 0, index)
}

func seek(at *node, height int, base, index int64) (int64, bool) {
	if at == nil || at.data == 0 || base+span(height+1) <= index {
		return 0, false
	}
	for slot := max(index-base, 0) >> (fanBits * height); slot < fan; slot++ {
		if height == 0 {
			if filled(at.pages[slot]) == 1 {
				return base + slot, true
			}
			continue
		}
		if found, ok := seek(at.nodes[slot], height-1, base+slot*span(height), index); ok {
			return found, true
		}
	}
	return 0, false
}
