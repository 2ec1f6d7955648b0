package hrl

const (
	pageSize     = 4096
	wordsPerPage = pageSize / 8
	bitsPerPage  = pageSize * 8
	slots        = 2
)

// area is where one bitmap lies in the file, in bytes.
type area struct {
	summary, summaryBytes int64
	bits, bitsBytes       int64
	// count is how many bits mean something.
	count int64
}

// layout is where everything lies in the log of a disk, and how long the file is.
type layout struct {
	areas [3]area
	bytes int64
}

// The areas. Which of the first two is live changes with each flip.
const (
	areaA = iota
	areaB
	areaSent
)

// layoutOf is the layout for a disk of size bytes, 512 to 64 TiB.
func layoutOf(size int64) layout {
	var l layout
	counts := [3]int64{ceilDiv(size, BlockSize), ceilDiv(size, BlockSize), ceilDiv(size, SentSize)}
	at := int64(slots * pageSize)
	for i, count := range counts {
		pages := ceilDiv(count, bitsPerPage)
		l.areas[i] = area{summary: at, summaryBytes: ceilDiv(pages, bitsPerPage) * pageSize, bitsBytes: pages * pageSize, count: count}
		at += l.areas[i].summaryBytes
	}
	for i := range l.areas {
		l.areas[i].bits = at
		at += l.areas[i].bitsBytes
	}
	l.bytes = at
	return l
}

// FileBytes is how long the log of a disk of size bytes is: about 66 MiB for each TiB.
func FileBytes(size int64) int64 { return layoutOf(size).bytes }

func ceilDiv(n, unit int64) int64 { return (n + unit - 1) / unit }

// outward is the marks of size unit that stand for every byte of the range.
func outward(off, n, unit int64) (first, end int64) { return off / unit, ceilDiv(off+n, unit) }

// inward is the blocks that lie in the range whole; the last of a disk of size bytes may be short.
func inward(off, n, size int64) (first, end int64) {
	first, end = ceilDiv(off, BlockSize), (off+n)/BlockSize
	if off+n >= size {
		end = ceilDiv(size, BlockSize)
	}
	return first, end
}
