package vhd

import (
	"errors"
	"fmt"
	"iter"
	"sync"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// fixed is a disk whose bytes are the file's, up to the footer.
type fixed struct {
	file     durable.File
	mode     durable.Mode
	size     int64
	unsynced durable.Unsynced

	mu     sync.Mutex // guards footer, over its I/O
	footer *footer
	at     int64 // where the footer lies
}

// newFixed makes a disk of a file whose footer lies at the given place, at the disk's end or behind it.
func newFixed(file durable.File, mode durable.Mode, f *footer, at int64) *fixed {
	d := &fixed{file: file, mode: mode, size: f.size(), footer: f, at: at}
	d.unsynced.Add(0, d.size)
	return d
}

// Size is the disk's size in bytes.
func (d *fixed) Size() int64 { return d.size }

// LogicalSectorSize is 512.
func (d *fixed) LogicalSectorSize() int { return sectorSize }

// AllocatedBytes is the space that the file takes on its filesystem.
func (d *fixed) AllocatedBytes() (int64, bool) { return durable.Allocated(d.file) }

// ReadAt fills p from off.
func (d *fixed) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(d.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := readFull(d.file, p, off); err != nil {
		return 0, fmt.Errorf("read VHD: %w", err)
	}
	return len(p), nil
}

// WriteAt writes p at off.
func (d *fixed) WriteAt(p []byte, off int64) (int, error) {
	if err := d.admit(off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	defer d.unsynced.Add(off, int64(len(p)))
	n, err := d.file.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write VHD: %w", err)
	}
	return n, nil
}

// Zero makes the range read as zeros and keeps its space.
func (d *fixed) Zero(off, n int64) error { return d.erase(off, n, d.file.ZeroRange) }

// Unmap makes the range read as zeros and gives its space back where the filesystem can.
func (d *fixed) Unmap(off, n int64) error { return d.erase(off, n, d.file.Punch) }

func (d *fixed) erase(off, n int64, erase func(off, n int64) error) error {
	if err := d.admit(off, n); err != nil || n == 0 {
		return err
	}
	defer d.unsynced.Add(off, n)
	if err := erase(off, n); err != nil {
		return fmt.Errorf("zero VHD: %w", err)
	}
	return nil
}

func (d *fixed) admit(off, n int64) error {
	if err := disk.CheckRange(d.size, off, n); err != nil {
		return err
	}
	if d.mode != durable.ReadWrite {
		return errReadOnly
	}
	return nil
}

// Extents yields data as Data and holes of the host's file as Unmapped.
func (d *fixed) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		joined := joiner{yield: yield}
		err := disk.CheckRange(d.size, off, n)
		if err == nil {
			err = d.settle(off, n)
		}
		if err == nil {
			err = hostExtents(d.file, off, n, disk.Unmapped, func(at, n int64, kind disk.Kind) bool {
				return joined.add(disk.Extent{Offset: at, Length: n, Kind: kind})
			})
		}
		joined.end()
		if err != nil && !joined.left {
			yield(disk.Extent{}, err)
		}
	}
}

// settle syncs the file when the range may have changed since the last sync.
func (d *fixed) settle(off, n int64) error {
	if n == 0 {
		return nil
	}
	return d.unsynced.Settle(off, n, d.file.Sync)
}

// Flush makes every completed change durable. Its first error is final.
func (d *fixed) Flush() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("flush VHD: %w", err)
	}
	return nil
}

// Close flushes what a writer left and closes the file.
func (d *fixed) Close() error {
	if d.mode != durable.ReadWrite {
		return d.file.Close()
	}
	return errors.Join(d.Flush(), d.file.Close())
}

// Identity is the unique id.
func (d *fixed) Identity() disk.Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.footer.identity()
}

// SetIdentity writes the footer with another unique id, after a sync of what was written before. The footer is one
// sector: after a crash it has the old id or the new one.
func (d *fixed) SetIdentity(id disk.Identity) error {
	if d.mode != durable.ReadWrite {
		return errReadOnly
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Flush(); err != nil {
		return err
	}
	changed := *d.footer
	changed.setIdentity(id)
	if _, err := d.file.WriteAt(changed[:], d.at); err != nil {
		return fmt.Errorf("set the VHD's unique id: %w", err)
	}
	d.footer = &changed
	return d.Flush()
}
