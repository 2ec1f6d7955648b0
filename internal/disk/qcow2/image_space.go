package qcow2

import (
	"fmt"
	"slices"

	"vmreplica/internal/failure"
)

// growBytes is by how much the file is made longer at least, all of it a hole.
const growBytes = 4 << 20

// space is which clusters of the file are taken, and what of that the file does not say yet. Numbers of clusters
// are offsets in the file divided by the cluster's size.
type space struct {
	blocks []uint64 // the refcount table: offsets of refcount blocks
	// blocksDirty are the 4 KiB pages of the refcount table that changed, l1Dirty those of the L1 table.
	blocksDirty, l1Dirty map[int64]struct{}
	// moved says that the refcount table has a new place, which the header does not name yet.
	moved bool
	// tables are the offsets of L2 tables and refcount blocks, sorted: nothing else may be written there.
	tables []int64
	// hint: every cluster before it is taken. touched: from here on the file was never written.
	hint, touched int64
	// freed clusters have one reference less once the next Flush has made durable what dropped it.
	freed []clusterRun
	// prepared says that the header allows for writes.
	prepared bool
}

// clusterRun is a number of clusters one after the other. fresh says that the file reads as zeros there.
type clusterRun struct {
	first, count int64
	fresh        bool
}

// maxFreed bounds the runs of freed clusters between two Flushes.
const maxFreed = 64 << 10

// openSpace reads the refcount table and checks that no two tables share a cluster.
func (i *Image) openSpace() (*space, error) {
	h := &i.header
	s := &space{blocksDirty: make(map[int64]struct{}), l1Dirty: make(map[int64]struct{}), touched: h.clusters(i.size)}
	var err error
	if s.blocks, err = i.readPointers(h.refcountTable, h.refcountBytes/8); err != nil {
		return nil, fmt.Errorf("read refcount table of qcow2 image: %w", err)
	}
	for n, block := range s.blocks {
		if block == 0 {
			continue
		}
		if !h.inside(int64(block), 0, i.size-1) || i.misplaced(int64(block)) {
			return nil, damaged("entry %d of the refcount table is %#x", n, block)
		}
		s.tables = append(s.tables, int64(block))
	}
	for n := range i.l1 {
		table, err := i.table(int64(n))
		if err != nil {
			return nil, err
		}
		if table != 0 && i.misplaced(table) {
			return nil, damaged("entry %d of the L1 table is %#x", n, i.l1[n])
		}
		if table != 0 {
			s.tables = append(s.tables, table)
		}
	}
	slices.Sort(s.tables)
	for n := 1; n < len(s.tables); n++ {
		if s.tables[n] == s.tables[n-1] {
			return nil, damaged("two tables share the place %d of the file", s.tables[n])
		}
	}
	return s, nil
}

// ofTable says whether one of n bytes at host belongs to a table.
func (i *Image) ofTable(host, n int64) bool {
	at, _ := slices.BinarySearch(i.space.tables, host-host&(i.header.cluster-1))
	return i.header.topTable(host, n) || at < len(i.space.tables) && i.space.tables[at] < host+n
}

// note adds a table to those known. mu is held.
func (s *space) note(table int64) {
	at, _ := slices.BinarySearch(s.tables, table)
	s.tables = slices.Insert(s.tables, at, table)
}

// drop takes a table from those known. mu is held.
func (s *space) drop(table int64) {
	if at, found := slices.BinarySearch(s.tables, table); found {
		s.tables = slices.Delete(s.tables, at, at+1)
	}
}

// allocate takes up to want clusters in one run, at least one, and gives each the refcount 1. changing is held.
func (i *Image) allocate(want int64) (clusterRun, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.space
	for {
		first, err := i.firstFree(s.hint)
		if err != nil {
			return clusterRun{}, err
		}
		s.hint = first
		if i.block(first) == 0 {
			if err := i.addBlock(first); err != nil {
				return clusterRun{}, err
			}
			continue
		}
		count, err := i.take(first, want)
		if err != nil {
			return clusterRun{}, err
		}
		fresh := first >= s.touched
		s.touched = max(s.touched, first+count)
		s.hint = first + count
		if err := i.grow(first + count); err != nil {
			s.freed = append(s.freed, clusterRun{first: first, count: count})
			return clusterRun{}, err
		}
		return clusterRun{first, count, fresh}, nil
	}
}

// take gives the refcount 1 to the free clusters from first on, up to want and within first's refcount block; where
// the file was written before and where it was not are never one run.
func (i *Image) take(first, want int64) (int64, error) {
	end := min(first+want, first-first%i.header.perBlock+i.header.perBlock)
	if first < i.space.touched {
		end = min(end, i.space.touched)
	}
	for c := first; c < end; c++ {
		count, err := i.count(c)
		if err != nil {
			return 0, err
		}
		if count != 0 {
			return c - first, nil
		}
		if off := c << i.header.bits; c < i.space.touched && i.ofTable(off, 1) {
			return 0, damaged("the table at %d of the file has the refcount 0", off)
		}
		if err := i.setCount(c, 1); err != nil {
			return 0, err
		}
	}
	return end - first, nil
}

// grow makes the file so many clusters long at least. mu is held.
func (i *Image) grow(clusters int64) error {
	size := clusters << i.header.bits
	if size <= i.size {
		return nil
	}
	size = max(size, (i.size+growBytes)>>i.header.bits<<i.header.bits)
	if err := i.file.Truncate(size); err != nil {
		return fmt.Errorf("grow qcow2 image: %w", err)
	}
	i.size = size
	return nil
}

// addBlock makes the free cluster first the refcount block of its own range. mu is held.
func (i *Image) addBlock(first int64) error {
	s, h := i.space, &i.header
	if index := first / h.perBlock; index >= int64(len(s.blocks)) {
		return i.moveCounts(first)
	}
	if err := i.blank(first, first >= s.touched); err != nil {
		return err
	}
	s.touched = max(s.touched, first+1)
	i.enterBlock(first/h.perBlock, first)
	return i.setCount(first, 1)
}

// blank makes a cluster read as zeros. mu is held.
func (i *Image) blank(cluster int64, fresh bool) error {
	if err := i.grow(cluster + 1); err != nil || fresh {
		return err
	}
	if i.ofTable(cluster<<i.header.bits, 1) {
		return damaged("the table at %d of the file has the refcount 0", cluster<<i.header.bits)
	}
	zeros := make([]byte, i.header.cluster)
	if _, err := i.file.WriteAt(zeros, cluster<<i.header.bits); err != nil {
		return fmt.Errorf("write tables of qcow2 image: %w", err)
	}
	return nil
}

// enterBlock makes the blank cluster a refcount block. mu is held.
func (i *Image) enterBlock(index, cluster int64) {
	off := cluster << i.header.bits
	i.pages.forget(off, i.header.cluster)
	i.space.blocks[index] = uint64(off)
	i.space.blocksDirty[index/pointersPerPage] = struct{}{}
	i.space.note(off)
}

// moveCounts gives the refcount table a new and larger place, with room for the cluster needed, behind everything
// that was ever written. mu is held.
func (i *Image) moveCounts(needed int64) error {
	s, h := i.space, &i.header
	first := max(needed, s.touched)
	plan := i.planCounts(first)
	if plan.bytes > maxCountsBytes {
		return failure.New(failure.Exhausted, failure.ReasonLimit,
			"the qcow2 image's refcount table cannot count a file of %d bytes", plan.end<<h.bits).
			Try("`qemu-img convert -o cluster_size=` makes one of larger clusters")
	}
	if err := i.grow(plan.end); err != nil {
		return err
	}
	old := clusterRun{first: h.refcountTable >> h.bits, count: h.refcountBytes >> h.bits}
	s.blocks = append(s.blocks, make([]uint64, plan.bytes/8-int64(len(s.blocks)))...)
	s.touched = plan.end
	for n, index := range plan.missing {
		i.enterBlock(index, plan.end-int64(len(plan.missing)-n))
	}
	for c := first; c < plan.end; c++ {
		if err := i.setCount(c, 1); err != nil {
			i.failed = err
			return err
		}
	}
	h.refcountTable, h.refcountBytes = first<<h.bits, plan.bytes
	s.moved = true
	s.freed = append(s.freed, old)
	return nil
}

// countsPlan is where a new refcount table ends, with the blocks that count it behind it.
type countsPlan struct {
	bytes   int64
	end     int64   // the cluster behind the last block
	missing []int64 // the indexes of those blocks
}

// planCounts finds how large a table at first must be to count itself, at least twice the present one.
func (i *Image) planCounts(first int64) countsPlan {
	h := &i.header
	p := countsPlan{bytes: 2 * h.refcountBytes}
	for {
		p.end = first + p.bytes>>h.bits + int64(len(p.missing))
		last := (p.end - 1) / h.perBlock
		var missing []int64
		for index := first / h.perBlock; index <= last; index++ {
			if i.block(index*h.perBlock) == 0 {
				missing = append(missing, index)
			}
		}
		bytes := max(p.bytes, h.clusters((last+1)*8)<<h.bits)
		if len(missing) == len(p.missing) && bytes == p.bytes {
			return p
		}
		p.missing, p.bytes = missing, bytes
	}
}
