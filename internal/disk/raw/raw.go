// Package raw is the image that is nothing but the disk's bytes: a regular file, sparse where its filesystem can.
//
// Vocabulary. A hole is a range for which the filesystem keeps no data: it reads as zeros and is Unmapped. Space
// that was reserved and never written looks the same.
//
// Invariants. The size is the file's when it was opened and never changes here. Where holes are is asked only
// after a sync of what may have changed: filesystems have told of holes where unwritten data was still in
// memory. A failed sync is final. After a crash every range holds what was last flushed or what was written
// since, by sectors.
package raw

import (
	"errors"
	"fmt"
	"io"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// errReadOnly is answered for changing a disk that was opened for reading.
var errReadOnly = errors.New("the disk is open for reading only")

// Options say how an image is opened.
type Options struct {
	// Path is for messages.
	Path string
	// SectorSize is the logical sector the machine sees: 512, which 0 stands for, or 4096.
	SectorSize int
	// Access is what the file was opened for.
	Access imagelock.Access
}

// Disk is an open raw image. Its methods may be called concurrently.
type Disk struct {
	file       durable.File
	path       string
	size       int64
	sectorSize int
	readOnly   bool
	unsynced   durable.Unsynced
}

// Open takes over file, locks it and makes it a disk. An error closes the file. Failures: IMAGE_IN_USE with who
// uses it; IMAGE_UNREADABLE for a size that no disk has, with the size. A file without a descriptor is not locked.
func Open(file durable.File, o Options) (*Disk, error) {
	d, err := open(file, o)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return d, nil
}

func open(file durable.File, o Options) (*Disk, error) {
	if o.SectorSize == 0 {
		o.SectorSize = 512
	}
	if fd, ok := file.Fd(); ok {
		if err := imagelock.Lock(fd, o.Path, o.Access); err != nil {
			return nil, err
		}
	}
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", o.Path, err)
	}
	if err := disk.CheckSize(size, o.SectorSize); err != nil {
		return nil, failure.New(failure.Precondition, failure.ReasonImageUnreadable,
			"%s cannot be used as a disk: %w", o.Path, err)
	}
	d := &Disk{file: file, path: o.Path, size: size, sectorSize: o.SectorSize, readOnly: o.Access == imagelock.Read}
	d.unsynced.Add(0, size)
	return d, nil
}

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// LogicalSectorSize is as it was stated at Open.
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
		err = io.ErrUnexpectedEOF // the file was cut short while it was open
	}
	return n, fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, d.path, err)
}

// WriteAt writes p at off.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.admit(off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	defer d.unsynced.Add(off, int64(len(p)))
	n, err := d.file.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write %d bytes at %d of %s: %w", len(p), off, d.path, err)
	}
	return n, nil
}

// Zero makes the range read as zeros and keeps its space.
func (d *Disk) Zero(off, n int64) error {
	if err := d.admit(off, n); err != nil || n == 0 {
		return err
	}
	defer d.unsynced.Add(off, n)
	if err := d.file.ZeroRange(off, n); err != nil {
		return fmt.Errorf("zero %d bytes at %d of %s: %w", n, off, d.path, err)
	}
	return nil
}

// Unmap makes the range read as zeros and gives its space back where the filesystem can.
func (d *Disk) Unmap(off, n int64) error {
	if err := d.admit(off, n); err != nil || n == 0 {
		return err
	}
	defer d.unsynced.Add(off, n)
	if err := d.file.Punch(off, n); err != nil {
		return fmt.Errorf("unmap %d bytes at %d of %s: %w", n, off, d.path, err)
	}
	return nil
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

// Flush makes every completed change durable. Its first error is final.
func (d *Disk) Flush() error {
	if err := d.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", d.path, err)
	}
	return nil
}

// AllocatedBytes is the space the file takes on its filesystem.
func (d *Disk) AllocatedBytes() (int64, bool) { return durable.Allocated(d.file) }

// Stamp syncs the image and describes it; errors.ErrUnsupported for a file without a descriptor.
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

// Close closes the file and with it gives up its locks. It does not flush.
func (d *Disk) Close() error { return d.file.Close() }
