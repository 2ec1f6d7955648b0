package vhd

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

var (
	_ disk.Stamper = (*sparse)(nil)
	_ disk.Stamper = (*fixed)(nil)
)

// Stamp flushes, cuts what the file was grown by and not used, and describes it; errors.ErrUnsupported for a file
// without a descriptor. Close changes nothing after it unless something was written between.
func (s *sparse) Stamp() (disk.Stamp, error) {
	if s.mode == durable.ReadWrite {
		if err := s.Flush(); err != nil {
			return disk.Stamp{}, err
		}
		if err := s.trim(); err != nil {
			return disk.Stamp{}, err
		}
	}
	return stampOf(s.file)
}

// Stamp syncs and describes the file; errors.ErrUnsupported for one without a descriptor.
func (d *fixed) Stamp() (disk.Stamp, error) {
	if d.mode == durable.ReadWrite {
		if err := d.Flush(); err != nil {
			return disk.Stamp{}, err
		}
	}
	return stampOf(d.file)
}

func stampOf(file durable.File) (disk.Stamp, error) {
	fd, ok := file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe the VHD: %w", errors.ErrUnsupported)
	}
	return disk.StampOf(fd)
}
