package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Image is one open qcow2 base, or a layer that another program made and that is only read. Its methods may be
// called concurrently; writes of overlapping ranges have no order among themselves.
//
// Locks, in the order in which they are taken: changing, inFlight, mu.
type Image struct {
	file   durable.File
	mode   durable.Mode
	header imageHeader

	// changing is held by whoever changes a table or a refcount, over its I/O, and by Flush.
	changing sync.Mutex
	// inFlight is held shared over I/O on clusters that a table pointed to, and alone where freed clusters become
	// free: nobody reads or writes one of them any more.
	inFlight sync.RWMutex

	// inflated holds the clusters decompressed last.
	inflated inflater

	// mu guards what follows. Pages of tables are read under it, nothing else.
	mu     sync.Mutex
	size   int64 // the file's, in bytes
	pages  pageCache
	l1     []uint64
	failed error // the first error of a Flush: final

	// space is what a writer knows of the file; nil when the image is only read. changing guards it.
	space *space
}

// OpenImage takes over file, which the caller has locked, and makes it a disk. On an error the file stays open and the
// caller's. Failures: UNSUPPORTED for what is not read or, in mode ReadWrite, not written; IMAGE_UNREADABLE for what
// contradicts itself.
func OpenImage(file durable.File, mode durable.Mode) (*Image, error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("measure qcow2 image: %w", err)
	}
	h, err := readImageHeader(file, size)
	if err != nil {
		return nil, err
	}
	if err := h.usable(mode); err != nil {
		return nil, err
	}
	i := &Image{file: file, mode: mode, header: *h, size: size}
	i.pages = newPageCache(h.page)
	i.inflated.header = h
	if i.l1, err = i.readPointers(h.l1, h.tablesOf(h.size)); err != nil {
		return nil, fmt.Errorf("read L1 table of qcow2 image: %w", err)
	}
	if mode == durable.ReadWrite {
		if i.space, err = i.openSpace(); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// readPointers reads a table of 8-byte entries that lies inside the file.
func (i *Image) readPointers(off, entries int64) ([]uint64, error) {
	table := make([]uint64, entries)
	var raw [64 << 10]byte
	for at := int64(0); at < entries; {
		part := raw[:min(int64(len(raw)), (entries-at)*8)]
		if err := readInside(i.file, i.size, part, off+at*8); err != nil {
			return nil, err
		}
		for ; len(part) > 0; part = part[8:] {
			table[at] = binary.BigEndian.Uint64(part)
			at++
		}
	}
	return table, nil
}

// Size is the disk's size in bytes.
func (i *Image) Size() int64 { return i.header.size }

// LogicalSectorSize is 512: the format does not record another.
func (i *Image) LogicalSectorSize() int { return sectorSize }

// Backing is the backing file's name and format as the header has them, the format empty where it says none; false
// when there is no backing file. Nothing is opened.
func (i *Image) Backing() (name, format string, ok bool) {
	return i.header.name, i.header.format, i.header.name != ""
}

// AllocatedBytes is the space that the file takes on its filesystem; false for a file without a descriptor.
func (i *Image) AllocatedBytes() (int64, bool) { return durable.Allocated(i.file) }

// Close flushes what a writer left and closes the file.
func (i *Image) Close() error {
	return errors.Join(i.Flush(), i.file.Close())
}

func damaged(format string, args ...any) error {
	return failure.New(failure.Corrupt, failure.ReasonImageUnreadable, "the qcow2 image is damaged: "+format, args...).
		Try("`qemu-img check` says more")
}

func notRead(format string, args ...any) *failure.Error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported, "the qcow2 image cannot be used: "+format, args...)
}

var _ disk.Disk = (*Image)(nil)
