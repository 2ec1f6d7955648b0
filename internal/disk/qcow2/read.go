package qcow2

import (
	"errors"
	"io"
	"iter"

	"vmreplica/internal/disk"
)

// ReadAt reads data and zeros. It answers disk.ErrAbsent, and how much lies before it, for a range that the overlay
// leaves to what is below.
func (o *Overlay) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(o.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	var entries [subclusters]entry
	for done < len(p) {
		at := off + int64(done)
		n := min(len(p)-done, int(subclusters*clusterSize-at%clusterSize))
		known, err := o.entries(entries[:], at, int64(n))
		if err != nil {
			return done, err
		}
		if n, err = o.readRuns(p[done:done+n], at, known); err != nil {
			return done + n, err
		}
		done += n
	}
	return done, nil
}

// entries copies the entries of the clusters that [off, off+n) touches, as far as one slice and the room go.
func (o *Overlay) entries(room []entry, off, n int64) ([]entry, error) {
	first := off / clusterSize
	count := (off+n-1)/clusterSize - first + 1
	count = min(count, sliceEntries-first%sliceEntries, int64(len(room)))
	known := room[:count]
	s, err := o.acquire(first / sliceEntries)
	if err != nil {
		return nil, err
	}
	if s == nil {
		clear(known)
	} else {
		copy(known, s.entries[first%sliceEntries:])
	}
	o.mu.Unlock()
	return known, nil
}

// readRuns reads as much of p as the entries, which begin with off's cluster, cover.
func (o *Overlay) readRuns(p []byte, off int64, entries []entry) (int, error) {
	done := 0
	for r := range runs(entries, off, int64(len(p))) {
		part := p[r.Offset-off:][:r.Length]
		switch r.Kind {
		case disk.Data:
			if err := o.readFile(part, r.host); err != nil {
				return done, err
			}
		case disk.Zero:
			clear(part)
		default:
			return done, disk.ErrAbsent
		}
		done += len(part)
	}
	return done, nil
}

// run is an extent and, when it is Data, its place in the file.
type run struct {
	disk.Extent
	host int64
}

// runs splits [off, off+n), as far as entries cover it, into runs of one kind; data is joined where it is
// contiguous in the file. entries begin with off's cluster.
func runs(entries []entry, off, n int64) iter.Seq[run] {
	return func(yield func(run) bool) {
		base := off - off%clusterSize
		end := min(off+n, base+int64(len(entries))*clusterSize)
		var joined run
		for at := off; at < end; {
			e := entries[(at-base)/clusterSize]
			inside := at % clusterSize
			kind, count := e.run(int(inside / subclusterSize))
			upTo := min(at-inside+(inside/subclusterSize+int64(count))*subclusterSize, end)
			next := run{disk.Extent{Offset: at, Length: upTo - at, Kind: kind}, e.host() + inside}
			at = upTo
			if joined.join(next) {
				continue
			}
			if joined.Length > 0 && !yield(joined) {
				return
			}
			joined = next
		}
		if joined.Length > 0 {
			yield(joined)
		}
	}
}

// join makes r cover next too when they are one run.
func (r *run) join(next run) bool {
	if r.Length == 0 || r.Kind != next.Kind || r.Kind == disk.Data && r.host+r.Length != next.host {
		return false
	}
	r.Length += next.Length
	return true
}

// readFile fills p from the file; what lies behind the end of a file that is only read is zeros.
func (o *Overlay) readFile(p []byte, off int64) error {
	if n := max(o.end-off, 0); n < int64(len(p)) {
		clear(p[n:])
		p = p[:n]
	}
	if len(p) == 0 {
		return nil
	}
	if n, err := o.file.ReadAt(p, off); err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return err
	}
	return nil
}

// Extents yields Data, Zero and Absent, neighbours joined. Ranges without an L2 table cost one step for each GiB.
func (o *Overlay) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(o.size, off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		pending := disk.Extent{Offset: off}
		emit := func(e disk.Extent) bool {
			if e.Kind == pending.Kind {
				pending.Length += e.Length
				return true
			}
			going := pending.Length == 0 || yield(pending, nil)
			pending = e
			return going
		}
		var room [sliceEntries]entry
		for at := off; at < off+n; at = pending.End() {
			if going, err := o.extentsAt(at, off+n, room[:], emit); !going {
				if err != nil {
					yield(disk.Extent{}, err)
				}
				return
			}
		}
		if pending.Length > 0 {
			yield(pending, nil)
		}
	}
}

// extentsAt emits the extents from at to the end of what is found in one step; false when it is over.
func (o *Overlay) extentsAt(at, end int64, room []entry, emit func(disk.Extent) bool) (going bool, err error) {
	if upTo := o.nextTable(at, end); upTo > at {
		return emit(disk.Extent{Offset: at, Length: upTo - at, Kind: disk.Absent}), nil
	}
	known, err := o.entries(room, at, end-at)
	if err != nil {
		return false, err
	}
	for r := range runs(known, at, end-at) {
		if !emit(r.Extent) {
			return false, nil
		}
	}
	return true, nil
}

// nextTable is where the first L2 table at or after at begins; at when it is in one, end when none follows.
func (o *Overlay) nextTable(at, end int64) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	for at < end && o.l1[at/tableSpan] == 0 {
		at = at - at%tableSpan + tableSpan
	}
	return min(at, end)
}

// DataBytes is the number of bytes of the disk that the overlay holds as data, in whole subclusters but at the
// disk's end: what a merge of it will write. It walks all tables.
func (o *Overlay) DataBytes() (int64, error) {
	var bytes int64
	for extent, err := range o.Extents(0, o.size) {
		if err != nil {
			return 0, err
		}
		if extent.Kind == disk.Data {
			bytes += extent.Length
		}
	}
	return bytes, nil
}
