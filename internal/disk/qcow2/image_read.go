package qcow2

import (
	"fmt"
	"iter"

	"vmreplica/internal/disk"
)

// piecesAtOnce bounds what one look at the tables gives.
const piecesAtOnce = 64

// ReadAt reads data and zeros. An image with a backing file answers disk.ErrAbsent, and how much lies before it, for
// a range that it leaves to what is below.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(i.header.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	i.inFlight.RLock()
	defer i.inFlight.RUnlock()
	var room [piecesAtOnce]piece
	for done := 0; done < len(p); {
		found, err := i.lookup(room[:0], off+int64(done), int64(len(p)-done))
		if err != nil {
			return done, err
		}
		for _, next := range found {
			if err := i.readPiece(p[done:done+int(next.Length)], next); err != nil {
				return done, err
			}
			done += int(next.Length)
		}
	}
	return len(p), nil
}

func (i *Image) readPiece(p []byte, from piece) error {
	switch {
	case from.compressed != 0:
		inside := from.Offset & (i.header.cluster - 1)
		return i.inflated.read(p, i.file, i.fileSize(), from.compressed, inside)
	case from.Kind == disk.Data:
		if err := readInside(i.file, i.fileSize(), p, from.host); err != nil {
			return fmt.Errorf("read qcow2 image: %w", err)
		}
	case i.kindOf(from) == disk.Absent:
		return disk.ErrAbsent
	default:
		clear(p)
	}
	return nil
}

// kindOf is p's kind as a reader sees it: without a backing file nothing is absent.
func (i *Image) kindOf(p piece) disk.Kind {
	if p.Kind == disk.Absent && i.header.name == "" {
		return disk.Unmapped
	}
	return p.Kind
}

func (i *Image) fileSize() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.size
}

// lookup appends the pieces of [off, off+n), as far as one page of a table and the room go.
func (i *Image) lookup(found []piece, off, n int64) ([]piece, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	g := &i.header.geometry
	table, err := i.table(off / g.span)
	if err != nil {
		return nil, err
	}
	if table == 0 {
		end := min(off-off%g.span+g.span, off+n)
		return append(found, piece{Extent: disk.Extent{Offset: off, Length: end - off, Kind: disk.Absent}}), nil
	}
	at, end := off, off+n
	place := table + off%g.span>>g.bits*g.entry
	raw, err := i.metadata(place - place%g.page)
	if err != nil {
		return nil, err
	}
	for rest := raw[place%g.page:]; at < end && len(rest) > 0; rest = rest[g.entry:] {
		e := g.entryAt(rest)
		for next := min(at-at&(g.cluster-1)+g.cluster, end); at < next; at = found[len(found)-1].End() {
			if len(found) == cap(found) {
				return found, nil
			}
			if found, err = i.appendPiece(found, e, at, next); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// appendPiece appends what e says of at, up to end at most.
func (i *Image) appendPiece(found []piece, e entry, at, end int64) ([]piece, error) {
	p, err := i.header.piece(e, at)
	if err != nil {
		return nil, err
	}
	p.Length = min(p.Length, end-at)
	if p.Kind == disk.Data && p.compressed == 0 && i.misplaced(p.host) {
		return nil, damaged("the content at %d of the disk is placed at %d of the file", at, p.host)
	}
	if last := len(found) - 1; last < 0 || !found[last].join(p) {
		return append(found, p), nil
	}
	return found, nil
}

// misplaced says whether content cannot lie at host: in a top table, or behind the end of the file.
func (i *Image) misplaced(host int64) bool { return host >= i.size || i.header.topTable(host, 1) }

// table is the place of an L2 table, 0 when there is none. mu is held.
func (i *Image) table(index int64) (int64, error) {
	table := int64(i.l1[index] & maskHost)
	if table != 0 && !i.header.inside(table, 0, i.size-1) {
		return 0, damaged("entry %d of the L1 table is %#x", index, i.l1[index])
	}
	return table, nil
}

// metadata is the page of a table at off. mu is held.
func (i *Image) metadata(off int64) ([]byte, error) {
	p, err := i.pages.get(i.file, i.size, off)
	if err != nil {
		return nil, fmt.Errorf("read tables of qcow2 image: %w", err)
	}
	return p.raw, nil
}

// Extents yields Data, Zero, Unmapped and, with a backing file, Absent, neighbours joined. A cluster that reads as
// zeros and has a place in the file is Zero, one that has none Unmapped.
func (i *Image) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(i.header.size, off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		pending := disk.Extent{Offset: off}
		var room [piecesAtOnce]piece
		for at := off; at < off+n; {
			found, err := i.lookup(room[:0], at, off+n-at)
			if err != nil {
				yield(disk.Extent{}, err)
				return
			}
			for _, next := range found {
				next.Kind = i.kindOf(next)
				at = next.End()
				if next.Kind == pending.Kind {
					pending.Length += next.Length
					continue
				}
				if pending.Length > 0 && !yield(pending, nil) {
					return
				}
				pending = next.Extent
			}
		}
		if pending.Length > 0 {
			yield(pending, nil)
		}
	}
}
