package qcow2

import (
	"fmt"

	"vmreplica/internal/failure"
)

// growClusters is by how much the file is made longer at least: 8 MiB, all of it a hole.
const growClusters = 64

// spare is what an allocation may take beyond the clusters of the disk: an L2 table, and refcount blocks where it
// enters ranges that have none.
const spare = 3

// take hands out a cluster of the file, with a refcount block before it where its range has none. mu is held, and
// room was called before.
func (o *Overlay) take() int64 {
	for o.blocks[o.next/blockCounts] == 0 {
		index := o.next / blockCounts
		o.blocks[index] = o.next * clusterSize
		o.fresh = append(o.fresh, index)
		o.metadata[o.next] = struct{}{}
		o.next++
	}
	cluster := o.next
	o.next++
	return cluster * clusterSize
}

// room says whether n clusters of the disk can be placed without growing the file. mu is held.
func (o *Overlay) room(n int) bool { return o.grown-o.next >= int64(n+spare) }

// grow makes the file long enough for n clusters more. mu is not held.
func (o *Overlay) grow(n int) error {
	o.growing.Lock()
	defer o.growing.Unlock()
	o.mu.Lock()
	grown, enough := o.grown, o.room(n)
	o.mu.Unlock()
	if enough {
		return nil
	}
	grown += max(int64(n+spare), growClusters)
	if grown > int64(len(o.blocks))*blockCounts {
		return failure.New(failure.Exhausted, failure.ReasonLimit,
			"the qcow2 overlay's refcount table cannot count a file of %d bytes", grown*clusterSize)
	}
	if err := o.file.Truncate(grown * clusterSize); err != nil {
		return fmt.Errorf("grow qcow2 overlay: %w", err)
	}
	o.mu.Lock()
	o.grown = grown
	o.mu.Unlock()
	return nil
}

// newTable makes the L2 table of a slice, and answers the slice. The table reads as zeros because its cluster is
// new. mu is held, and room was called before.
func (o *Overlay) newTable(index int64) *slice {
	off := o.take()
	o.metadata[off/clusterSize] = struct{}{}
	o.l1[index/tableSlices] = uint64(off) | flagCopied
	o.l1Dirty[index/tableSlices/pointersPerPage] = struct{}{}
	s := &slice{index: index, entries: new([sliceEntries]entry)}
	o.cache.insert(s)
	return s
}
