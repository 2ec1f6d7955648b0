package vhd

import (
	"errors"
	"fmt"
	"io"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Image is a base: a fixed or a dynamic disk. Its methods may be called concurrently; writes of overlapping ranges
// have no order among themselves.
type Image struct{ base }

// base is what both kinds of base do.
type base interface {
	disk.Image
	disk.Identified
}

// Layer is a differencing disk. Writes are in multiples of 4 KiB but for the disk's end.
type Layer struct {
	*sparse
	// parent is what the header says; sparse.flushing guards it.
	parent disk.Parent
}

// Open takes over file and makes it a base. It believes nothing in the file: what does not fit together is refused,
// class Corrupt, and a differencing disk, class Precondition, with its parent named. Opening for writing mends a
// footer that a crash left behind. An error closes the file.
func Open(file durable.File, mode durable.Mode) (*Image, error) {
	f, err := readFooters(file)
	if err != nil {
		return nil, closed(file, err)
	}
	var opened base
	if f.chosen.kind() == fixedDisk {
		opened = newFixed(file, mode, f.chosen, f.fileSize-footerSize)
	} else if opened, err = openSparse(file, mode, f); err != nil {
		return nil, closed(file, err)
	}
	return &Image{opened}, nil
}

// OpenDifferencing is Open for a differencing disk; a base is refused, class Precondition. The parent is not opened.
func OpenDifferencing(file durable.File, mode durable.Mode) (*Layer, error) {
	f, err := readFooters(file)
	if err == nil && f.chosen.kind() != differencingDisk {
		err = failure.New(failure.Precondition, failure.ReasonImageUnreadable,
			"VHD: the disk is %s, not a differencing disk", f.chosen.kind())
	}
	if err != nil {
		return nil, closed(file, err)
	}
	h, err := readHeader(file, f)
	if err != nil {
		return nil, closed(file, err)
	}
	parent, err := readParent(file, h.header, f.fileSize)
	if err != nil {
		return nil, closed(file, err)
	}
	s, err := newSparse(file, mode, f, h)
	if err != nil {
		return nil, closed(file, err)
	}
	return &Layer{sparse: s, parent: parent}, nil
}

func closed(file durable.File, err error) error {
	return errors.Join(fmt.Errorf("open VHD: %w", err), file.Close())
}

// openSparse opens a dynamic disk.
func openSparse(file durable.File, mode durable.Mode, f *footers) (*sparse, error) {
	h, err := readHeader(file, f)
	if err != nil {
		return nil, err
	}
	if f.chosen.kind() == differencingDisk {
		parent, err := readParent(file, h.header, f.fileSize)
		if err != nil {
			return nil, err
		}
		return nil, failure.New(failure.Precondition, failure.ReasonImageUnreadable,
			"VHD: it is a differencing disk and holds only what differs from its parent %q", parent.Name).
			Try("name the parent as the disk, or merge the differencing disk into it first")
	}
	return newSparse(file, mode, f, h)
}

// footers is what a file says of itself at its two ends.
type footers struct {
	fileSize int64
	// end and copy are nil where there is no valid footer; endErr and copyErr say why.
	end, copy       *footer
	endErr, copyErr error
	// chosen is the one that counts.
	chosen *footer
}

// readFooters reads both footers and chooses.
func readFooters(file durable.File) (*footers, error) {
	size, err := file.Size()
	if err != nil {
		return nil, fmt.Errorf("measure the file: %w", err)
	}
	if size < footerSize {
		return nil, corrupt("the file has %d bytes, which is less than a footer", size)
	}
	f := &footers{fileSize: size}
	if f.end, f.endErr, err = readFooter(file, size-footerSize); err != nil {
		return nil, err
	}
	if f.copy, f.copyErr, err = readFooter(file, 0); err != nil {
		return nil, err
	}
	return f, f.choose()
}

// readFooter answers a footer, or what is wrong with it, or that it cannot be read.
func readFooter(file durable.File, off int64) (f *footer, bad, err error) {
	sector := make([]byte, footerSize)
	if err := readFull(file, sector, off); err != nil {
		return nil, nil, err
	}
	f, bad = parseFooter(sector)
	return f, bad, nil
}

// choose applies the rule of the package's comment.
func (f *footers) choose() error {
	switch {
	case f.end != nil && f.end.kind() == fixedDisk:
		if f.end.size() > f.fileSize-footerSize {
			return corrupt("a fixed disk of %d bytes does not fit the file of %d", f.end.size(), f.fileSize)
		}
		f.chosen = f.end
	case f.copy != nil && f.copy.kind() != fixedDisk:
		if f.end != nil && !f.end.describesAs(f.copy) {
			return corrupt("the footer and its copy describe different disks")
		}
		f.chosen = f.copy
	case f.end != nil:
		f.chosen = f.end
	default:
		return f.endErr
	}
	return nil
}

// headerFound is the header and where it is meant to lie.
type headerFound struct {
	*header
	offset int64
	// recovered says that it was taken from its second place.
	recovered bool
}

// readHeader reads the header, from its second place when the first was torn, and checks it.
func readHeader(file durable.File, f *footers) (*headerFound, error) {
	at := f.chosen.headerOffset()
	if at < footerSize || at%sectorSize != 0 || at > uint64(f.fileSize) || f.fileSize-int64(at) < headerSize {
		return nil, corrupt("the header at %d lies outside the file of %d bytes", at, f.fileSize)
	}
	found := &headerFound{offset: int64(at)}
	var bad error
	for place := int64(at); place <= int64(at)+headerSize && f.fileSize-place >= headerSize; place += headerSize {
		p := make([]byte, headerSize)
		if err := readFull(file, p, place); err != nil {
			return nil, err
		}
		h, err := parseHeader(p)
		if err == nil {
			found.header, found.recovered = h, place != int64(at)
			return found, h.check(int64(at), f.chosen.size(), f.fileSize)
		}
		if bad == nil {
			bad = err
		}
	}
	return nil, bad
}

// readFull fills p from the file; the file's end within it is an error.
func readFull(file durable.File, p []byte, off int64) error {
	n, err := file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d of the file: %w", len(p), off, err)
}

var (
	_ disk.Image      = (*Image)(nil)
	_ disk.Identified = (*Image)(nil)
	_ disk.Layer      = (*Layer)(nil)
	_ disk.Identified = (*Layer)(nil)
)
