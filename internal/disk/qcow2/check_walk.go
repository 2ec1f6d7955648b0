package qcow2

import (
	"encoding/binary"
	"fmt"
)

const (
	snapshotFields = 40
	bitmapFields   = 24
	// maxDescriptions bounds how many snapshots, and how many bitmaps, are looked at: QEMU's bound.
	maxDescriptions = 65536
	walkBytes       = 64 << 10
)

// walk counts every use of the window's clusters.
func (c *checker) walk() error {
	h := &c.image.header
	if err := c.use(0, 1, usedByTop, "the header"); err != nil {
		return err
	}
	if err := c.use(h.refcountTable, h.refcountBytes, usedByTop, "the refcount table"); err != nil {
		return err
	}
	for block := range c.blocks {
		if err := c.use(block, 1, usedByTop, "a refcount block"); err != nil {
			return err
		}
	}
	if err := c.level1(h.l1, h.tables, true); err != nil {
		return err
	}
	if err := c.snapshots(); err != nil {
		return err
	}
	if h.autoclear&autoclearBitmaps == 0 {
		return nil
	}
	return c.bitmaps()
}

// level1 walks an L1 table and what hangs from it.
func (c *checker) level1(off, entries int64, active bool) error {
	h := &c.image.header
	if entries*8 > maxL1Bytes || !h.inside(off, entries*8, c.image.size) {
		return c.once("an L1 table of %d entries at %d of the file", entries, off)
	}
	if err := c.use(off, entries*8, usedByTop, "an L1 table"); err != nil {
		return err
	}
	walked := int64(0)
	return c.eachWord(off, entries*8, func(at int64, word uint64) error {
		table := int64(word & maskHost)
		if table == 0 {
			return nil
		}
		if walked++; walked > h.clusters(c.image.size) {
			return c.once("the L1 table at %d names more tables than the file has clusters", off)
		}
		if !h.inside(table, 1, c.image.size) {
			return c.once("the L1 entry at %d of the file is %#x", at, word)
		}
		if err := c.use(table, 1, usedByTable, "an L2 table"); err != nil {
			return err
		}
		if err := c.copied(at, word, table, active); err != nil {
			return err
		}
		return c.level2(table, active)
	})
}

// level2 walks an L2 table. Of an extended entry the second word is looked at with the first.
func (c *checker) level2(table int64, active bool) error {
	h := &c.image.header
	var descriptor uint64
	return c.eachWord(table, h.cluster, func(at int64, word uint64) error {
		e := entry{descriptor: word}
		switch {
		case h.extended && at%h.entry == 0:
			descriptor = word
			return nil
		case h.extended:
			e = entry{descriptor: descriptor, subs: word}
		}
		if e == (entry{}) {
			return nil
		}
		return c.cluster(at, e, active)
	})
}

// cluster counts the use that an L2 entry at a place of the file makes.
func (c *checker) cluster(at int64, e entry, active bool) error {
	h := &c.image.header
	if e.descriptor&flagCompressed != 0 {
		if active && e.descriptor&flagCopied != 0 {
			if err := c.once("the L2 entry at %d of the file, %#x, is of a compressed cluster and of its own", at, e.descriptor); err != nil {
				return err
			}
		}
		off, n := h.packed(e.descriptor)
		return c.use(off, n, usedByData, "a compressed cluster")
	}
	host := int64(e.descriptor & maskHost)
	if host&(h.cluster-1) != 0 || h.extended && e.data()&e.zero() != 0 || host == 0 && e.data() != 0 {
		return c.once("the L2 entry at %d of the file is %#x %#x", at, e.descriptor, e.subs)
	}
	if host == 0 {
		return nil
	}
	if err := c.use(host, h.cluster, usedByData, "a cluster"); err != nil {
		return err
	}
	return c.copied(at, e.descriptor, host, active)
}

// copied holds the mark of what the disk does not share against the refcount.
func (c *checker) copied(at int64, word uint64, host int64, active bool) error {
	if !active || c.from > 0 || host >= c.image.size {
		return nil
	}
	stored, err := c.image.count(host >> c.image.header.bits)
	if err != nil {
		return fmt.Errorf("read refcounts: %w", err)
	}
	if (word&flagCopied != 0) == (stored == 1) {
		return nil
	}
	return c.once("the entry at %d of the file is %#x, and the refcount of what it names is %d", at, word, stored)
}

// eachWord calls visit for every 8 bytes of [off, off+n) with their place in the file.
func (c *checker) eachWord(off, n int64, visit func(at int64, word uint64) error) error {
	raw := make([]byte, min(n, walkBytes))
	for at := off; at < off+n; at += walkBytes {
		part := raw[:min(walkBytes, off+n-at)]
		if err := readInside(c.image.file, c.image.size, part, at); err != nil {
			return fmt.Errorf("read tables: %w", err)
		}
		for k := 0; k+8 <= len(part); k += 8 {
			if err := visit(at+int64(k), binary.BigEndian.Uint64(part[k:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// snapshots walks the snapshot table and the tables of every snapshot.
func (c *checker) snapshots() error {
	h := &c.image.header
	if h.snapshotCount == 0 {
		return nil
	}
	if h.snapshotCount > maxDescriptions || !h.inside(h.snapshots, snapshotFields, c.image.size) {
		return c.once("%d snapshots at %d of the file", h.snapshotCount, h.snapshots)
	}
	at := h.snapshots
	for range h.snapshotCount {
		var fields [snapshotFields]byte
		if at+snapshotFields > c.image.size {
			return c.once("the snapshot table at %d leaves the file", h.snapshots)
		}
		if err := readInside(c.image.file, c.image.size, fields[:], at); err != nil {
			return fmt.Errorf("read snapshot table: %w", err)
		}
		order := binary.BigEndian
		if err := c.level1(int64(order.Uint64(fields[0:])), int64(order.Uint32(fields[8:])), false); err != nil {
			return err
		}
		length := snapshotFields + int64(order.Uint32(fields[36:])) + int64(order.Uint16(fields[12:])) +
			int64(order.Uint16(fields[14:]))
		at += (length + 7) &^ 7
	}
	return c.use(h.snapshots, at-h.snapshots, usedByTop, "the snapshot table")
}

// bitmaps walks the bitmap directory and every bitmap's table.
func (c *checker) bitmaps() error {
	d := c.image.header.bitmaps
	if d.count > maxDescriptions || !c.image.header.inside(d.offset, d.bytes, c.image.size) || d.bytes < 0 {
		return c.once("a bitmap directory of %d bytes at %d of the file", d.bytes, d.offset)
	}
	if err := c.use(d.offset, d.bytes, usedByTop, "the bitmap directory"); err != nil {
		return err
	}
	at := d.offset
	for range d.count {
		var fields [bitmapFields]byte
		if at+bitmapFields > d.offset+d.bytes {
			return c.once("the bitmap directory at %d is too short for %d bitmaps", d.offset, d.count)
		}
		if err := readInside(c.image.file, c.image.size, fields[:], at); err != nil {
			return fmt.Errorf("read bitmap directory: %w", err)
		}
		order := binary.BigEndian
		if err := c.bitmap(int64(order.Uint64(fields[0:])), int64(order.Uint32(fields[8:]))); err != nil {
			return err
		}
		length := bitmapFields + int64(order.Uint32(fields[20:])) + int64(order.Uint16(fields[18:]))
		at += (length + 7) &^ 7
	}
	return nil
}

func (c *checker) bitmap(table, entries int64) error {
	if !c.image.header.inside(table, entries*8, c.image.size) {
		return c.once("a bitmap table of %d entries at %d of the file", entries, table)
	}
	if err := c.use(table, entries*8, usedByTop, "a bitmap table"); err != nil {
		return err
	}
	return c.eachWord(table, entries*8, func(at int64, word uint64) error {
		if host := int64(word & maskHost); host != 0 {
			return c.use(host, c.image.header.cluster, usedByTop, "a bitmap")
		}
		return nil
	})
}
