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

func stampOf(file durable.File) (disk.Stamp, error) {
	fd, ok := file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe an open image: %w", errors.ErrUnsupported)
	}
	return disk.StampOf(fd)
}

// imageOf keeps a nil image from becoming one that is not nil.
func imageOf[I disk.Image](image I, err error) (disk.Image, error) {
	if err != nil {
		return nil, err
	}
	return image, nil
}

// stamped is imageOf for a disk without a Stamp.
func stamped(d disk.Disk, file durable.File, err error) (disk.Image, error) {
	if err != nil {
		return nil, err
	}
	return opened{Disk: d, file: file}, nil
}
