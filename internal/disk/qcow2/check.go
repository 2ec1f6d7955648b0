package qcow2

import (
	"errors"
	"fmt"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// windowClusters is of how many clusters of the file a Check counts the uses at a time: 16 MiB of counters, which
// serve 256 GiB in clusters of 64 KiB. A longer file has its tables walked once for each window.
const windowClusters = 4 << 20

// What a counter holds beside the number of uses: by what.
const (
	usedByTop   = uint32(1) << 31 // a table that nothing may share
	usedByTable = uint32(1) << 30 // an L2 table
	usedByData  = uint32(1) << 29
	usesMask    = usedByData - 1
)

// errEnough ends a Check that nobody listens to any more.
var errEnough = errors.New("enough findings")

// Check compares the refcounts of a qcow2 file with what its tables use, those of internal snapshots and bitmaps among
// them, and yields what does not fit, ending at the first error. It reads an Overlay's files too. Memory is bounded,
// whatever the file: 16 MiB of counters, a refcount table of 8 MiB at most, and some pages.
func Check(file durable.File) iter.Seq2[disk.Finding, error] {
	return func(yield func(disk.Finding, error) bool) {
		if err := check(file, yield); err != nil && !errors.Is(err, errEnough) {
			yield(disk.Finding{}, err)
		}
	}
}

// checker is one Check.
type checker struct {
	image  *Image
	yield  func(disk.Finding, error) bool
	from   int64    // the window's first cluster
	uses   []uint32 // by cluster of the window
	blocks map[int64]struct{}
}

func check(file durable.File, yield func(disk.Finding, error) bool) error {
	size, err := file.Size()
	if err != nil {
		return fmt.Errorf("measure qcow2 image: %w", err)
	}
	h, err := readImageHeader(file, size)
	if err != nil {
		return err
	}
	c := &checker{image: &Image{file: file, header: *h, size: size, pages: newPageCache(h.page)}, yield: yield}
	if err := c.features(); err != nil {
		return err
	}
	blocks, err := c.image.readPointers(h.refcountTable, h.refcountBytes/8)
	if err != nil {
		return fmt.Errorf("read refcount table: %w", err)
	}
	c.image.space = &space{blocks: blocks}
	if err := c.refcountTable(); err != nil {
		return err
	}
	clusters := h.clusters(size)
	c.uses = make([]uint32, min(clusters, windowClusters))
	for ; c.from < clusters; c.from += windowClusters {
		c.uses = c.uses[:min(clusters-c.from, windowClusters)]
		clear(c.uses)
		if err := c.walk(); err != nil {
			return err
		}
		if err := c.compare(); err != nil {
			return err
		}
	}
	return c.behind(clusters)
}

// found yields a finding.
func (c *checker) found(severity disk.Severity, format string, args ...any) error {
	if !c.yield(disk.Finding{Severity: severity, Message: fmt.Sprintf(format, args...)}, nil) {
		return errEnough
	}
	return nil
}

// once is found for what every window would find again.
func (c *checker) once(format string, args ...any) error {
	if c.from > 0 {
		return nil
	}
	return c.found(disk.Damaged, format, args...)
}

// features says what the header says of itself.
func (c *checker) features() error {
	h := &c.image.header
	switch {
	case h.encryption != 0 || h.incompatible&incompatibleExternal != 0 || h.incompatible&^incompatibleKnown != 0:
		return notRead("its features %#x and its encryption %d are not known here", h.incompatible, h.encryption)
	case h.incompatible&incompatibleCorrupt != 0:
		return c.found(disk.Damaged, "the header marks the image as corrupt")
	}
	return nil
}

// refcountTable finds entries that cannot be, and takes them out.
func (c *checker) refcountTable() error {
	c.blocks = make(map[int64]struct{})
	i := c.image
	for n, block := range i.space.blocks {
		if block == 0 {
			continue
		}
		_, shared := c.blocks[int64(block)]
		if !shared && i.header.inside(int64(block), 1, i.size) {
			c.blocks[int64(block)] = struct{}{}
			continue
		}
		i.space.blocks[n] = 0
		if err := c.once("entry %d of the refcount table is %#x", n, block); err != nil {
			return err
		}
	}
	return nil
}

// use counts one use of every cluster that [off, off+n) touches, by what. A range that leaves the file is a finding,
// but for where a file may end: within what is used last.
func (c *checker) use(off, n int64, by uint32, what string) error {
	g := &c.image.header.geometry
	if off < 0 || off >= c.image.size {
		return c.once("%s is placed at %d, behind the end of the file", what, off)
	}
	first, end := off>>g.bits, g.clusters(min(off+n, c.image.size))
	for at := max(first, c.from); at < min(end, c.from+int64(len(c.uses))); at++ {
		counter := &c.uses[at-c.from]
		*counter |= by
		if *counter&usesMask < usesMask {
			*counter++
		}
	}
	return nil
}

// compare holds the window's uses against the refcounts, neighbours with the same fault together.
func (c *checker) compare() error {
	g := &c.image.header.geometry
	var pending fault
	for n, counter := range c.uses {
		cluster := c.from + int64(n)
		stored, err := c.image.count(cluster)
		if err != nil {
			return fmt.Errorf("read refcounts: %w", err)
		}
		next := fault{first: cluster, count: 1, stored: stored, uses: uint64(counter & usesMask), overlap: overlaps(counter)}
		if pending.join(next) {
			continue
		}
		if err := c.report(g, pending); err != nil {
			return err
		}
		pending = next
	}
	return c.report(g, pending)
}

// overlaps says whether a counter has uses that exclude each other.
func overlaps(counter uint32) bool {
	return counter&usedByTop != 0 && counter&usesMask > 1 || counter&usedByTable != 0 && counter&usedByData != 0
}

// fault is a run of clusters, their refcount and how often they are in use.
type fault struct {
	first, count int64
	stored, uses uint64
	overlap      bool
}

func (f *fault) join(next fault) bool {
	if f.stored != next.stored || f.uses != next.uses || f.overlap != next.overlap || f.count == 0 {
		return false
	}
	f.count++
	return true
}

func (c *checker) report(g *geometry, f fault) error {
	off, n := f.first<<g.bits, f.count<<g.bits
	switch {
	case f.overlap:
		return c.found(disk.Damaged, "%d bytes at %d of the file are in use by a table and by something else", n, off)
	case f.stored == f.uses:
		return nil
	case f.uses == 0:
		return c.found(disk.Leaked, "%d bytes at %d of the file belong to nothing", n, off)
	case f.stored > f.uses:
		return c.found(disk.Leaked, "%d bytes at %d of the file are in use %d times, their refcount is %d", n, off, f.uses, f.stored)
	default:
		return c.found(disk.Damaged, "%d bytes at %d of the file are in use %d times, their refcount is %d", n, off, f.uses, f.stored)
	}
}

// behind reports refcounts of clusters behind the end of the file.
func (c *checker) behind(clusters int64) error {
	g := &c.image.header.geometry
	for n, block := range c.image.space.blocks {
		last := int64(n+1) * g.perBlock
		if block == 0 || last <= clusters {
			continue
		}
		for at := max(clusters, last-g.perBlock); at < last; at++ {
			stored, err := c.image.count(at)
			if err != nil {
				return fmt.Errorf("read refcounts: %w", err)
			}
			if err := c.report(g, fault{first: at, count: 1, stored: stored}); err != nil {
				return err
			}
		}
	}
	return nil
}
