package qcow2

import (
	"fmt"

	"vmreplica/internal/disk"
)

// ownTable is the L2 table of an index of the L1 table, one that belongs to the disk alone: a new one where there was
// none, a copy where a snapshot shares it. changing is held.
func (i *Image) ownTable(index int64) (int64, error) {
	i.mu.Lock()
	table, err := i.table(index)
	shared := i.l1[index]&flagCopied == 0
	i.mu.Unlock()
	if err != nil || table != 0 && !shared {
		return table, err
	}
	run, err := i.allocate(1)
	if err != nil {
		return 0, err
	}
	off := run.first << i.header.bits
	if err := i.newTable(off, table, run.fresh); err != nil {
		i.space.freed = append(i.space.freed, run)
		return 0, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pages.forget(off, i.header.cluster)
	i.space.note(off)
	if table != 0 {
		i.space.drop(table)
		i.space.freed = append(i.space.freed, clusterRun{first: table >> i.header.bits, count: 1})
	}
	i.l1[index] = uint64(off) | flagCopied
	i.space.l1Dirty[index/pointersPerPage] = struct{}{}
	return off, nil
}

// newTable writes a copy of the table at from, or an empty table. What a snapshot shares is not the disk's own, so no
// cluster of the copy is.
func (i *Image) newTable(off, from int64, fresh bool) error {
	if from == 0 && fresh {
		return nil
	}
	g := &i.header.geometry
	raw := make([]byte, g.cluster)
	if from != 0 {
		if err := readInside(i.file, i.fileSize(), raw, from); err != nil {
			return fmt.Errorf("read tables of qcow2 image: %w", err)
		}
		for rest := raw; len(rest) > 0; rest = rest[g.entry:] {
			e := g.entryAt(rest)
			e.descriptor &^= flagCopied
			g.putEntry(rest, e)
		}
	}
	if _, err := i.file.WriteAt(raw, off); err != nil {
		return fmt.Errorf("write tables of qcow2 image: %w", err)
	}
	return nil
}

// entryPage is the page of a table with the entry of off, and the entry's place in it. mu is held.
func (i *Image) entryPage(table, off int64) (*metaPage, []byte, error) {
	g := &i.header.geometry
	at := table + off%g.span>>g.bits*g.entry
	p, err := i.pages.get(i.file, i.size, at-at%g.page)
	if err != nil {
		return nil, nil, fmt.Errorf("read tables of qcow2 image: %w", err)
	}
	return p, p.raw[at%g.page:][:g.entry], nil
}

func (i *Image) entry(table, off int64) (entry, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, raw, err := i.entryPage(table, off)
	if err != nil {
		return entry{}, err
	}
	return i.header.entryAt(raw), nil
}

// setEntry changes the entry of off in a table of the disk's own; the place that it had is freed. changing is held.
func (i *Image) setEntry(table, off int64, e entry) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	p, raw, err := i.entryPage(table, off)
	if err != nil {
		return err
	}
	before := i.header.entryAt(raw)
	if before == e {
		return nil
	}
	i.header.putEntry(raw, e)
	i.pages.change(p, tablePage)
	if before.descriptor&(flagCompressed|maskHost) != e.descriptor&(flagCompressed|maskHost) {
		i.release(before)
	}
	return nil
}

// release takes back the reference of an entry to its clusters, once it is durable that it is gone. mu is held.
func (i *Image) release(e entry) {
	g := &i.header.geometry
	host, n := int64(e.descriptor&maskHost), g.cluster
	if e.descriptor&flagCompressed != 0 {
		host, n = g.packed(e.descriptor)
	}
	if host == 0 {
		return
	}
	first := host >> g.bits
	run := clusterRun{first: first, count: g.clusters(host+n) - first}
	if last := len(i.space.freed) - 1; last >= 0 && i.space.freed[last].first+i.space.freed[last].count == first {
		i.space.freed[last].count += run.count
		return
	}
	i.space.freed = append(i.space.freed, run)
}

// Zero makes the range zeros. Whole clusters keep their place in the file where the format has a mark for zeros.
func (i *Image) Zero(off, n int64) error { return i.clear(off, n, i.header.version > 2) }

// Unmap makes the range zeros. Whole clusters give their space back with the next Flush, parts of them at once where
// the file's filesystem can.
func (i *Image) Unmap(off, n int64) error { return i.clear(off, n, false) }

func (i *Image) clear(off, n int64, keep bool) error {
	if err := i.admit(off, n); err != nil {
		return err
	}
	g := &i.header.geometry
	for end := off + n; off < end; {
		start := off - off&(g.cluster-1)
		whole := end &^ (g.cluster - 1)
		if end == i.header.size {
			whole = end
		}
		upTo := min(start+g.cluster, end)
		var err error
		if off == start && off < whole {
			upTo, err = i.clearWhole(off, whole, keep)
		} else {
			err = i.clearPart(off, upTo-off, keep)
		}
		if err != nil {
			return err
		}
		off = upTo
	}
	return nil
}

// clearWhole clears whole clusters from off on, within a page of a table, and says up to where.
func (i *Image) clearWhole(off, end int64, keep bool) (int64, error) {
	g := &i.header.geometry
	i.changing.Lock()
	defer i.changing.Unlock()
	if err := i.makeRoom(); err != nil {
		return 0, err
	}
	i.mu.Lock()
	table, err := i.table(off / g.span)
	i.mu.Unlock()
	if table == 0 || err != nil {
		return min(off-off%g.span+g.span, end), err
	}
	perPage := g.page / g.entry * g.cluster
	end = min(off-off%g.span%perPage+perPage, end)
	for ; off < end; off += g.cluster {
		e, err := i.entry(table, off)
		if err != nil {
			return 0, err
		}
		if e == (entry{}) {
			continue
		}
		if table, err = i.ownTable(off / g.span); err != nil {
			return 0, err
		}
		if e, err = i.entry(table, off); err != nil {
			return 0, err
		}
		if err := i.setEntry(table, off, g.cleared(e, keep)); err != nil {
			return 0, err
		}
	}
	return min(off, end), nil
}

// cleared is e with the cluster's content gone: all zeros in its own place, or without any.
func (g *geometry) cleared(e entry, keep bool) entry {
	switch {
	case !keep || g.home(e) == 0:
		return entry{}
	case g.extended:
		e.subs = (1<<subclusters - 1) << subclusters
	default:
		e.descriptor |= flagZero
	}
	return e
}

// clearPart clears [off, off+n), which lies in one cluster: where it has a place of its own, there.
func (i *Image) clearPart(off, n int64, keep bool) error {
	clearFile := i.file.Punch
	if keep {
		clearFile = i.file.ZeroRange
	}
	for n > 0 {
		done, err := i.overwrite(off, n, clearFile)
		if err != nil {
			return err
		}
		if done == 0 {
			if done, err = i.clearOther(off, n); err != nil {
				return err
			}
		}
		off, n = off+done, n-done
	}
	return nil
}

// clearOther clears the beginning of a range that has no place of its own, and says how much.
func (i *Image) clearOther(off, n int64) (int64, error) {
	i.changing.Lock()
	defer i.changing.Unlock()
	if err := i.makeRoom(); err != nil {
		return 0, err
	}
	var room [1]piece
	found, err := i.lookup(room[:0], off, n)
	if err != nil {
		return 0, err
	}
	n = min(found[0].Length, n)
	if found[0].Kind != disk.Data {
		return n, nil
	}
	table, err := i.ownTable(off / i.header.span)
	if err != nil {
		return 0, err
	}
	return n, i.placePart(table, make([]byte, n), off)
}
