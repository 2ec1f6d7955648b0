package qcow2

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"vmreplica/internal/durable"
)

// fieldCounts is where the header has the refcount table's place and size, in its first sector.
const fieldCounts = 48

// Flush makes every write that completed before it durable. Reads, and writes to where the disk has content already,
// go on beside it. Its first error is final: every later write and Flush answers it.
func (i *Image) Flush() error {
	if i.mode != durable.ReadWrite {
		return nil
	}
	i.changing.Lock()
	defer i.changing.Unlock()
	return i.flush()
}

// flush is Flush with changing held: nothing dirty changes meanwhile.
func (i *Image) flush() error {
	i.mu.Lock()
	failed := i.failed
	i.mu.Unlock()
	if failed != nil {
		return failed
	}
	if err := i.writeAll(); err != nil {
		return i.fail(fmt.Errorf("flush qcow2 image: %w", err))
	}
	return nil
}

// writeAll puts everything dirty into the file, in the order that keeps every state between usable.
func (i *Image) writeAll() error {
	s := i.space
	if err := i.writePages(countsPage); err != nil {
		return err
	}
	if s.moved {
		if err := i.writePointers(s.blocks, i.header.refcountTable, nil); err != nil {
			return err
		}
	}
	if err := i.file.Sync(); err != nil {
		return err
	}
	if err := i.writeBlocks(); err != nil {
		return err
	}
	if len(i.pages.dirty[tablePage]) > 0 || len(s.l1Dirty) > 0 {
		if err := i.writePages(tablePage); err != nil {
			return err
		}
		if err := i.writePointers(i.l1, i.header.l1, s.l1Dirty); err != nil {
			return err
		}
		if err := i.file.Sync(); err != nil {
			return err
		}
		clear(s.l1Dirty)
	}
	return i.reclaim()
}

// writeBlocks makes the refcount table name the new blocks, or the header the new table.
func (i *Image) writeBlocks() error {
	s := i.space
	switch {
	case s.moved:
		h := &i.header
		field := binary.BigEndian.AppendUint64(nil, uint64(h.refcountTable))
		field = binary.BigEndian.AppendUint32(field, uint32(h.refcountBytes>>h.bits))
		if _, err := i.file.WriteAt(field, fieldCounts); err != nil {
			return err
		}
	case len(s.blocksDirty) > 0:
		if err := i.writePointers(s.blocks, i.header.refcountTable, s.blocksDirty); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := i.file.Sync(); err != nil {
		return err
	}
	s.moved = false
	clear(s.blocksDirty)
	return nil
}

// writePages writes the dirty pages of a role in the order of the file, neighbours together.
func (i *Image) writePages(what role) error {
	dirty := i.pages.dirty[what]
	slices.SortFunc(dirty, func(a, b *metaPage) int { return cmp.Compare(a.off, b.off) })
	var gathered []byte
	for n, p := range dirty {
		gathered = append(gathered, p.raw...)
		next := p.off + int64(len(p.raw))
		if n+1 < len(dirty) && dirty[n+1].off == next && len(gathered) < gatherBytes {
			continue
		}
		if _, err := i.file.WriteAt(gathered, next-int64(len(gathered))); err != nil {
			return err
		}
		gathered = gathered[:0]
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pages.clean(what)
	return nil
}

// writePointers writes pages of the table at off, those of dirty, or all of them when it is nil.
func (i *Image) writePointers(table []uint64, off int64, dirty map[int64]struct{}) error {
	for first := 0; first < len(table); first += pointersPerPage {
		if _, found := dirty[int64(first/pointersPerPage)]; !found && dirty != nil {
			continue
		}
		var raw []byte
		for _, pointer := range table[first:min(first+pointersPerPage, len(table))] {
			raw = binary.BigEndian.AppendUint64(raw, pointer)
		}
		if _, err := i.file.WriteAt(raw, off+int64(first)*8); err != nil {
			return err
		}
	}
	return nil
}

// reclaim takes back the references that were dropped, now that it is durable that they are. The refcounts that it
// lowers need no sync of their own: until the next one a crash leaves leaks.
func (i *Image) reclaim() error {
	s := i.space
	if len(s.freed) == 0 {
		return nil
	}
	i.inFlight.Lock()
	i.inflated.forget()
	i.inFlight.Unlock()
	freed := s.freed
	s.freed = nil
	for _, run := range freed {
		if err := i.reclaimRun(run); err != nil {
			return err
		}
	}
	return i.writePages(countsPage)
}

func (i *Image) reclaimRun(run clusterRun) error {
	for c, end := run.first, run.first+run.count; c < end; {
		free, done, err := i.lower(c, end)
		if err != nil {
			return err
		}
		if free > 0 {
			if err := i.file.Punch(c<<i.header.bits, free<<i.header.bits); err != nil {
				return err
			}
		}
		c += done
		if !i.pages.full() {
			continue
		}
		if err := i.writePages(countsPage); err != nil {
			return err
		}
	}
	return nil
}

// lower takes one reference from clusters from c on, done of them: the first are free now, all or all but one.
func (i *Image) lower(c, end int64) (free, done int64, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for ; c+done < end && free == done; done++ {
		off := (c + done) << i.header.bits
		count, err := i.count(c + done)
		switch {
		case err != nil:
			return 0, 0, err
		case count == 0:
			return 0, 0, damaged("the cluster at %d of the file was in use, and its refcount is 0", off)
		case count == 1 && i.ofTable(off, 1):
			return 0, 0, damaged("the table at %d of the file was in use for content", off)
		}
		if err := i.setCount(c+done, count-1); err != nil {
			return 0, 0, err
		}
		if count == 1 {
			i.space.hint = min(i.space.hint, c+done)
			i.pages.forget(off, i.header.cluster)
			free++
		}
	}
	return free, done, nil
}
