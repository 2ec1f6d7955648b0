// Package device is a disk on a block device: a logical volume, a partition, a whole drive.
//
// Vocabulary. A device is known by its number (major:minor), which holds within one boot, its size and, where it
// tells one, its serial.
//
// Invariants. What is opened is checked to be a block device before it is opened as one, so that nothing else is
// ever touched, and it is claimed exclusively, so that no filesystem on it is mounted and no volume built on it.
// The kernel keeps no map of what is in use on a device: every range counts as data. Zeros are asked for with
// the operations that promise zeros, never by a discard, which promises nothing. A failed sync is final.
package device

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// errReadOnly is answered for changing a device that was opened for reading.
var errReadOnly = errors.New("the device is open for reading only")

// largestZeroing bounds one call that zeroes, which cannot be interrupted.
const largestZeroing = 1 << 30

// Disk is an open block device. Its methods may be called concurrently.
type Disk struct {
	file       durable.File
	path       string
	size       int64
	sectorSize int
	readOnly   bool
}

// Size is the device's size in bytes when it was opened.
func (d *Disk) Size() int64 { return d.size }

// LogicalSectorSize is the device's own.
func (d *Disk) LogicalSectorSize() int { return d.sectorSize }

// ReadAt fills p from off.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(d.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.file.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the device shrank while it was open
	}
	return n, fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, d.path, err)
}

// WriteAt writes p at off, through the host's page cache.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.admit(off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	n, err := d.file.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %d bytes at %d of %s: %w", len(p), off, d.path, err)
	}
	return n, nil
}

// Zero makes the range read as zeros and keeps its space.
func (d *Disk) Zero(off, n int64) error { return d.clear("zero", off, n, d.file.ZeroRange) }

// Unmap makes the range read as zeros and releases its space where the device can do both at once.
func (d *Disk) Unmap(off, n int64) error { return d.clear("unmap", off, n, d.file.Punch) }

// clear zeroes whole sectors with do, and writes zeros to what the range takes of the sectors at its ends.
func (d *Disk) clear(op string, off, n int64, do func(off, n int64) error) error {
	if err := d.admit(off, n); err != nil || n == 0 {
		return err
	}
	end, sector := off+n, int64(d.sectorSize)
	first := min((off+sector-1)/sector*sector, end)
	last := max(end/sector*sector, first)
	err := d.writeZeros(off, first-off)
	for at := first; err == nil && at < last; at += largestZeroing {
		err = do(at, min(largestZeroing, last-at))
	}
	if err == nil {
		err = d.writeZeros(last, end-last)
	}
	if err != nil {
		return fmt.Errorf("%s %d bytes at %d of %s: %w", op, n, off, d.path, err)
	}
	return nil
}

// writeZeros writes less than a sector of zeros.
func (d *Disk) writeZeros(off, n int64) error {
	if n == 0 {
		return nil
	}
	_, err := d.file.WriteAt(make([]byte, n), off)
	return err
}

// admit checks a change before it is made.
func (d *Disk) admit(off, n int64) error {
	if err := disk.CheckRange(d.size, off, n); err != nil {
		return err
	}
	if d.readOnly {
		return errReadOnly
	}
	return nil
}

// Flush makes every completed change durable, in the device's own cache too. Its first error is final.
func (d *Disk) Flush() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}

// Extents yields the whole range as Data.
func (d *Disk) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(d.size, off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		if n > 0 {
			yield(disk.Extent{Offset: off, Length: n, Kind: disk.Data}, nil)
		}
	}
}

// AllocatedBytes is not known for a device.
func (d *Disk) AllocatedBytes() (int64, bool) { return 0, false }

// Stamp syncs the device and describes it.
func (d *Disk) Stamp() (disk.Stamp, error) {
	fd, ok := d.file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe %s: %w", d.path, errors.ErrUnsupported)
	}
	if err := d.Flush(); err != nil {
		return disk.Stamp{}, err
	}
	return disk.StampOf(fd)
}

// Close lets the device go, its locks and its claim with it. It does not flush.
func (d *Disk) Close() error { return d.file.Close() }
