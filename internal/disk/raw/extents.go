package raw

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"vmreplica/internal/disk"
)

// Extents yields data as Data and holes as Unmapped.
func (d *Disk) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := d.walk(off, n, func(e disk.Extent) bool { return yield(e, nil) }); err != nil {
			yield(disk.Extent{}, err)
		}
	}
}

func (d *Disk) walk(off, n int64, yield func(disk.Extent) bool) error {
	if err := disk.CheckRange(d.size, off, n); err != nil || n == 0 {
		return err
	}
	if err := d.settle(off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		start, stop, err := d.nextData(off, end)
		if err != nil {
			return err
		}
		if start > off && !yield(disk.Extent{Offset: off, Length: start - off, Kind: disk.Unmapped}) {
			return nil
		}
		if stop > start && !yield(disk.Extent{Offset: start, Length: stop - start, Kind: disk.Data}) {
			return nil
		}
		off = stop
	}
	return nil
}

// settle syncs the file when the range may have changed since the last sync.
func (d *Disk) settle(off, n int64) error {
	return d.unsynced.Settle(off, n, d.Flush)
}

// nextData finds the first data in [off, end); start and stop are end when there is none.
func (d *Disk) nextData(off, end int64) (start, stop int64, err error) {
	start, stop, err = d.file.SeekData(off)
	if errors.Is(err, io.EOF) {
		return end, end, d.checkSize()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find data at %d of %s: %w", off, d.path, err)
	}
	if start < off || stop <= start {
		return 0, 0, fmt.Errorf("find data at %d of %s: the filesystem answered [%d, %d)", off, d.path, start, stop)
	}
	return min(start, end), min(stop, end), nil
}

// checkSize tells a hole at the end of the disk from a file that was cut short while it was open.
func (d *Disk) checkSize() error {
	size, err := d.file.Size()
	if err != nil {
		return fmt.Errorf("measure %s: %w", d.path, err)
	}
	if size < d.size {
		return fmt.Errorf("%s was cut from %d to %d bytes while it was open: %w", d.path, d.size, size, io.ErrUnexpectedEOF)
	}
	return nil
}
