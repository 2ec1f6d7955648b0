package vhdx

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// Extents yields Data; Zero, for zero blocks and for holes that the host's file has within a block; Unmapped for
// blocks without space; and, of a Layer, Absent.
func (v *virtualDisk) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := v.walk(off, n, func(e disk.Extent) bool { return yield(e, nil) }); err != nil {
			yield(disk.Extent{}, err)
		}
	}
}

func (v *virtualDisk) walk(off, n int64, yield func(disk.Extent) bool) error {
	if err := disk.CheckRange(v.size, off, n); err != nil {
		return err
	}
	var holes holeFinder
	holes.file = v.file
	for end := off + n; off < end; {
		r, err := v.next(off, end)
		if err != nil {
			return err
		}
		if r.Kind != disk.Data {
			if !yield(r.Extent) {
				return nil
			}
			off = r.End()
			continue
		}
		if err := v.syncBefore(r); err != nil {
			return err
		}
		for off < r.End() {
			e, err := holes.split(r, off)
			if err != nil {
				return err
			}
			if !yield(e) {
				return nil
			}
			off = e.End()
		}
	}
	return nil
}

// syncBefore syncs the file when what is written in r's place may not have reached it: filesystems have told of
// holes where unwritten data was still in memory.
func (v *virtualDisk) syncBefore(r run) error {
	if err := v.unsynced.Settle(r.host, r.Length, v.file.Sync); err != nil {
		return v.fail(fmt.Errorf("sync the VHDX file: %w", err))
	}
	return nil
}

// holeFinder asks the filesystem for holes, and remembers the last answer.
type holeFinder struct {
	file durable.File
	// [from, start) is a hole, [start, end) is data.
	from, start, end int64
}

// split is what r holds from off on: data, or the zeros of a hole.
func (h *holeFinder) split(r run, off int64) (disk.Extent, error) {
	host := r.host + off - r.Offset
	if host < h.from || host >= h.end {
		start, end, err := h.file.SeekData(host)
		if errors.Is(err, io.EOF) {
			start, end, err = r.host+r.Length, r.host+r.Length, nil
		}
		if err != nil {
			return disk.Extent{}, fmt.Errorf("find data at %d of the VHDX file: %w", host, err)
		}
		if start < host || end < start || end <= host {
			return disk.Extent{}, fmt.Errorf("find data at %d of the VHDX file: the filesystem answered [%d, %d)", host, start, end)
		}
		h.from, h.start, h.end = host, start, end
	}
	e := disk.Extent{Offset: off, Kind: disk.Data, Length: min(h.end-host, r.End()-off)}
	if host < h.start {
		e.Kind, e.Length = disk.Zero, min(h.start-host, r.End()-off)
	}
	return e, nil
}
