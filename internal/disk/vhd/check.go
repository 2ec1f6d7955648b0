package vhd

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// cellsAtOnce bounds the memory of the search for overlapping blocks: 16 MiB.
const cellsAtOnce = 4 << 20

// Check looks for what is inconsistent in a VHD file, whatever its kind, and changes nothing. An error is of the
// file's own reading and ends the walk. Memory is bounded whatever the BAT: a table larger than what is held at once
// is read several times.
func Check(file durable.File) iter.Seq2[disk.Finding, error] {
	return func(yield func(disk.Finding, error) bool) {
		c := &checker{file: file, yield: yield}
		if err := c.run(); err != nil && !c.left {
			yield(disk.Finding{}, err)
		}
	}
}

type checker struct {
	file  durable.File
	yield func(disk.Finding, error) bool
	left  bool // the walk was left
	f     *footers
	s     *sparse
	// blocks have a sound place; lastEnd is where the last of them ends.
	blocks, lastEnd int64
}

func (c *checker) report(severity disk.Severity, format string, args ...any) {
	if !c.left && !c.yield(disk.Finding{Severity: severity, Message: fmt.Sprintf(format, args...)}, nil) {
		c.left = true
	}
}

func (c *checker) damaged(format string, args ...any) { c.report(disk.Damaged, format, args...) }

// run checks from the outside in, and ends where what is inside cannot be found.
func (c *checker) run() error {
	f, err := readFooters(c.file)
	if f == nil {
		return err
	}
	if err != nil {
		c.damaged("%v", err)
		return nil
	}
	c.f = f
	if f.chosen.kind() == fixedDisk {
		if unused := f.fileSize - footerSize - f.chosen.size(); unused > 0 {
			c.report(disk.Leaked, "%d bytes at %d lie between the fixed disk and its footer", unused, f.chosen.size())
		}
		return nil
	}
	c.checkFooters()
	h, err := readHeader(c.file, f)
	if err != nil {
		c.damaged("%v", err)
		return nil
	}
	if h.recovered {
		c.damaged("the header at %d is torn; its second place at %d is whole", h.offset, h.offset+headerSize)
	}
	if c.s, err = newSparse(c.file, durable.ReadOnly, f, h); err != nil {
		return err
	}
	return c.checkInside(h)
}

func (c *checker) checkFooters() {
	switch {
	case c.f.end == nil:
		c.damaged("the footer at the file's end, %d, is not valid: %v", c.f.fileSize-footerSize, c.f.endErr)
	case c.f.copy == nil:
		c.damaged("the copy of the footer at 0 is not valid: %v", c.f.copyErr)
	case *c.f.end != *c.f.copy:
		c.damaged("the footer at %d and its copy at 0 differ", c.f.fileSize-footerSize)
	}
}

func (c *checker) checkInside(h *headerFound) error {
	if c.s.differencing {
		c.checkLocators(h.header)
	}
	c.lastEnd = c.s.bat + c.s.batLength
	if err := c.checkBlocks(); err != nil || c.left {
		return err
	}
	cells := (c.lastEnd + c.span() - 1) / c.span()
	begins := make([]uint32, min(cells, cellsAtOnce)+1)
	for from := int64(0); from < cells && !c.left; {
		next, err := c.checkOverlaps(from, begins)
		if err != nil {
			return err
		}
		from = next
	}
	c.checkUnused()
	return nil
}

// checkLocators asks that what a locator names lies in the file.
func (c *checker) checkLocators(h *header) {
	for i := range locators {
		if l := h.locator(i); l.inUse() && !l.inside(c.f.fileSize) {
			c.damaged("parent locator %d names %d bytes at %d of a file of %d", i, l.length, l.offset, c.f.fileSize)
		}
	}
}

// span is what a block takes of the file at least.
func (c *checker) span() int64 { return c.s.bitmap + c.s.block }

// entries calls visit with every block that has a place, sound or not, by its offset in the file.
func (c *checker) entries(visit func(block, off int64) error) error {
	window := make([]byte, windowBytes)
	count := (c.s.size + c.s.block - 1) / c.s.block
	for first := int64(0); first < count && !c.left; first += windowBytes / 4 {
		p := window[:min(windowBytes, (count-first)*4)]
		if err := readFull(c.file, p, c.s.bat+first*4); err != nil {
			return err
		}
		for i := int64(0); i < int64(len(p))/4 && !c.left; i++ {
			sector := binary.BigEndian.Uint32(p[i*4:])
			if sector == absentEntry {
				continue
			}
			if err := visit(first+i, int64(sector)*sectorSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkBlocks asks of every block that it lies where blocks may lie and, in a dynamic disk, that its bits are set.
func (c *checker) checkBlocks() error {
	bitmap := make([]byte, c.s.bitmap)
	return c.entries(func(block, off int64) error {
		if bad := c.s.misplaced(off); bad != "" {
			c.damaged("block %d at %d of the file %s", block, off, bad)
			return nil
		}
		c.blocks++
		c.lastEnd = max(c.lastEnd, off+c.span())
		if c.s.differencing {
			return nil
		}
		if err := readFull(c.file, bitmap, off); err != nil {
			return err
		}
		if !isFull(bitmap, c.s.block/sectorSize/8) {
			c.damaged("the bitmap at %d of block %d has zero bits, which programs read differently", off, block)
		}
		return nil
	})
}

// checkOverlaps finds blocks that share bytes of the file, among those that begin in the cells from the given one on
// that begins has room for. A cell is as long as a block: two blocks that begin in one overlap, and those that begin
// in neighbouring cells may. The last of begins is for the first cell behind. It answers the next cell that a block
// begins in.
func (c *checker) checkOverlaps(from int64, begins []uint32) (next int64, err error) {
	clear(begins)
	next = math.MaxInt64
	last := int64(len(begins)) - 1
	err = c.entries(func(block, off int64) error {
		cell := off/c.span() - from
		if c.s.misplaced(off) != "" || cell < 0 {
			return nil
		}
		if cell >= last {
			next = min(next, cell+from)
		}
		if cell > last {
			return nil
		}
		sector := uint32(off / sectorSize)
		switch other := begins[cell]; {
		case other == 0:
			begins[cell] = sector
		case cell == last:
			begins[cell] = min(other, sector)
		default:
			c.damaged("block %d at %d of the file overlaps another at %d", block, off, int64(other)*sectorSize)
		}
		return nil
	})
	for cell := int64(1); err == nil && cell <= last && !c.left; cell++ {
		before, after := int64(begins[cell-1])*sectorSize, int64(begins[cell])*sectorSize
		if before != 0 && after != 0 && after-before < c.span() {
			c.damaged("the block at %d of the file overlaps the one at %d", before, after)
		}
	}
	return next, err
}

// checkUnused tells of space that belongs to nothing, beyond what aligning the blocks takes.
func (c *checker) checkUnused() {
	if behind := c.s.tail - c.lastEnd; behind >= grainSize {
		c.report(disk.Leaked, "%d bytes at %d lie between the last block and the footer", behind, c.lastEnd)
	}
	between := c.lastEnd - c.s.bat - c.s.batLength - c.blocks*c.span()
	if unused := between - c.blocks*grainSize; unused > 0 {
		c.report(disk.Leaked, "%d bytes before %d lie between blocks and belong to none", unused, c.lastEnd)
	}
}
