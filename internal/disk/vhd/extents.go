package vhd

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Extents yields Data and, in a dynamic disk, Unmapped; in a differencing one Zero for what is present but a hole
// of the host's file, and Absent. Neighbours are joined. The BAT is read by windows.
func (s *sparse) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(s.size, off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		joined := joiner{yield: yield}
		for end := off + n; off < end; {
			r, err := s.locate(off, end-off)
			if err == nil {
				err = s.emit(&joined, off, r)
			}
			if joined.left {
				return
			}
			if err != nil {
				yield(disk.Extent{}, fmt.Errorf("walk VHD: %w", err))
				return
			}
			off += r.n
		}
		joined.end()
	}
}

// emit gives the extents of one run.
func (s *sparse) emit(to *joiner, off int64, r run) error {
	if !r.present {
		kind := disk.Unmapped
		if s.differencing {
			kind = disk.Absent
		}
		to.add(disk.Extent{Offset: off, Length: r.n, Kind: kind})
		return nil
	}
	if err := s.unsynced.Settle(off, r.n, s.file.Sync); err != nil {
		return err
	}
	hole := disk.Unmapped
	if s.differencing {
		hole = disk.Zero
	}
	return hostExtents(s.file, r.host, r.n, hole, func(at, n int64, kind disk.Kind) bool {
		return to.add(disk.Extent{Offset: off + at - r.host, Length: n, Kind: kind})
	})
}

// joiner yields extents, neighbours of one kind together.
type joiner struct {
	yield   func(disk.Extent, error) bool
	pending disk.Extent
	// left says that the walk was left.
	left bool
}

// add says whether the walk goes on.
func (j *joiner) add(e disk.Extent) bool {
	if j.left {
		return false
	}
	if e.Kind == j.pending.Kind {
		j.pending.Length += e.Length
		return true
	}
	j.end()
	j.pending = e
	return !j.left
}

func (j *joiner) end() {
	if j.pending.Length > 0 && !j.left && !j.yield(j.pending, nil) {
		j.left = true
	}
}

// hostExtents tells data from holes in [off, off+n) of a file, as its filesystem does; hole is what holes are.
func hostExtents(file durable.File, off, n int64, hole disk.Kind, emit func(at, n int64, kind disk.Kind) bool) error {
	for end := off + n; off < end; {
		start, stop, err := file.SeekData(off)
		switch {
		case errors.Is(err, io.EOF):
			start, stop = end, end
		case err != nil:
			return fmt.Errorf("find data at %d of the file: %w", off, err)
		case start < off || stop <= start:
			return fmt.Errorf("find data at %d of the file: the filesystem answered [%d, %d)", off, start, stop)
		}
		start, stop = min(start, end), min(stop, end)
		if start > off && !emit(off, start-off, hole) || stop > start && !emit(start, stop-start, disk.Data) {
			return nil
		}
		off = stop
	}
	return nil
}
