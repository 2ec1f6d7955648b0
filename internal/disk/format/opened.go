package format

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// opened is an image of a format whose package has no Stamp of its own.
type opened struct {
	disk.Disk
	file durable.File
}

// Stamp flushes the image and describes its file; errors.ErrUnsupported for a file without a descriptor.
func (o opened) Stamp() (disk.Stamp, error) {
	if err := o.Flush(); err != nil {
		return disk.Stamp{}, err
	}
	return stampOf(o.file)
}

// openedWithIdentity is an opened image whose format has identities.
type openedWithIdentity struct {
	opened
	disk.Identified
}

func stampOf(file durable.File) (disk.Stamp, error) {
	fd, ok := file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe an open image: %w", errors.ErrUnsupported)
	}
	return disk.StampOf(fd)
}

// identity is a disk whose format has identities.
type identity interface {
	disk.Disk
	disk.Identified
}

// identified is an image of d, unless there is an error.
func identified(d identity, file durable.File, err error) (disk.Image, error) {
	if err != nil {
		return nil, err
	}
	if image, ok := d.(disk.Image); ok {
		return image, nil
	}
	return openedWithIdentity{opened: opened{Disk: d, file: file}, Identified: d}, nil
}

// stamped is identified for a format without identities.
func stamped(d disk.Disk, file durable.File, err error) (disk.Image, error) {
	if err != nil {
		return nil, err
	}
	return opened{Disk: d, file: file}, nil
}
