package qcow2

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"vmreplica/internal/durable"
)

const (
	pointersPerPage = sliceSize / 8
	// gatherBytes bounds how much metadata is put together for one write.
	gatherBytes = 1 << 20
)

// batch is what one Flush makes durable: the metadata of one instant.
type batch struct {
	held   []*slice
	slices []heldSlice
	// pages are 4 KiB pages of the L1 table by their offset in the file, copied.
	pages []page
	// counts are the clusters whose refcount is missing in the file: [from, to).
	from, to int64
	// blocks are the refcount blocks of that range, and fresh the indexes of those that the refcount table lacks.
	blocks map[int64]int64
	fresh  []int64
}

// heldSlice is a slice as it was: entries do not change while it is held.
type heldSlice struct {
	entries *[sliceEntries]entry
	offset  int64
}

type page struct {
	offset int64
	raw    []byte
}

// Flush makes every write that completed before it durable. Reads and writes go on beside it. Its first error is
// final: every later write and Flush answers it.
func (o *Overlay) Flush() error {
	if o.mode != durable.ReadWrite {
		return nil
	}
	o.flushing.Lock()
	defer o.flushing.Unlock()
	return o.flush()
}

// flush is Flush with flushing held.
func (o *Overlay) flush() error {
	if _, err := o.full(); err != nil {
		return err
	}
	b := o.hold()
	err := o.write(b)
	if err != nil {
		err = fmt.Errorf("flush qcow2 overlay: %w", err)
	}
	o.release(b, err)
	return err
}

// hold notes everything that is dirty. From here on it is clean, but for what changes again.
func (o *Overlay) hold() *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := &batch{from: o.counted, to: o.next, blocks: make(map[int64]int64), fresh: o.fresh}
	o.fresh = nil
	for index := b.from / blockCounts; index*blockCounts < b.to; index++ {
		b.blocks[index] = o.blocks[index]
	}
	for _, index := range b.fresh {
		b.blocks[index] = o.blocks[index]
	}
	for index := range o.l1Dirty {
		b.pages = append(b.pages, o.pageOfL1(index))
	}
	clear(o.l1Dirty)
	b.held = o.cache.hold()
	for _, s := range b.held {
		table := int64(o.l1[s.index/tableSlices] & maskOffset)
		b.slices = append(b.slices, heldSlice{s.entries, table + s.index%tableSlices*sliceSize})
	}
	return b
}

func (o *Overlay) pageOfL1(index int64) page {
	first := index * pointersPerPage
	last := min(first+pointersPerPage, int64(len(o.l1)))
	p := page{offset: o.header.l1 + first*8}
	for _, pointer := range o.l1[first:last] {
		p.raw = binary.BigEndian.AppendUint64(p.raw, pointer)
	}
	return p
}

// release lets go of the batch's slices.
func (o *Overlay) release(b *batch, failed error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = failed
	o.counted = b.to
	o.cache.release(b.held)
}

// write puts the batch into the file, in the order that keeps every state between usable.
func (o *Overlay) write(b *batch) error {
	if err := o.writeCounts(b); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return err
	}
	if len(b.fresh) > 0 {
		if err := o.writeFresh(b); err != nil {
			return err
		}
		if err := o.file.Sync(); err != nil {
			return err
		}
	}
	if len(b.slices)+len(b.pages) == 0 {
		return nil
	}
	if err := o.writeSlices(b.slices); err != nil {
		return err
	}
	for _, p := range b.pages {
		if _, err := o.file.WriteAt(p.raw, p.offset); err != nil {
			return err
		}
	}
	return o.file.Sync()
}

// writeCounts gives every new cluster the refcount 1.
func (o *Overlay) writeCounts(b *batch) error {
	for at := b.from; at < b.to; {
		index := at / blockCounts
		upTo := min((index+1)*blockCounts, b.to)
		if _, err := o.file.WriteAt(countsOfOne(upTo-at), b.blocks[index]+at%blockCounts*2); err != nil {
			return err
		}
		at = upTo
	}
	return nil
}

// countsOfOne is n refcounts of 1.
func countsOfOne(n int64) []byte { return bytes.Repeat([]byte{0, 1}, int(n)) }

// writeFresh enters the new refcount blocks into the refcount table.
func (o *Overlay) writeFresh(b *batch) error {
	for _, index := range b.fresh {
		pointer := binary.BigEndian.AppendUint64(nil, uint64(b.blocks[index]))
		if _, err := o.file.WriteAt(pointer, o.header.refcountTable+index*8); err != nil {
			return err
		}
	}
	return nil
}

// writeSlices writes slices in the order of the file, neighbours together.
func (o *Overlay) writeSlices(held []heldSlice) error {
	slices.SortFunc(held, func(a, b heldSlice) int { return cmp.Compare(a.offset, b.offset) })
	var gathered []byte
	for i, h := range held {
		for _, e := range h.entries {
			gathered = binary.BigEndian.AppendUint64(gathered, e.descriptor)
			gathered = binary.BigEndian.AppendUint64(gathered, e.subs)
		}
		end := h.offset + sliceSize
		if i+1 < len(held) && held[i+1].offset == end && len(gathered) < gatherBytes {
			continue
		}
		if _, err := o.file.WriteAt(gathered, end-int64(len(gathered))); err != nil {
			return err
		}
		gathered = gathered[:0]
	}
	return nil
}
