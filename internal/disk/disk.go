// Package disk is the contract between a disk image and everything that reads or writes one. What lies behind
// it is a raw file, a block device or a differencing disk; nobody above it knows which.
//
// Vocabulary. An Extent is a range of the disk with one Kind. A base holds every byte of the disk; a Layer holds
// some and leaves the rest, Absent, to what is below it. A Stamp is what is remembered of a closed image, to
// notice that another program changed it: detection, not proof.
//
// Invariants. Offsets and lengths are bytes, never negative, and a range never leaves the disk: a call that
// would is refused with ErrRange and changes nothing. A write is durable once Flush returned nil; a Flush error
// is final. Reads may run beside writes of other ranges.
package disk

import (
	"errors"
	"io"
	"iter"
)

// ErrRange is answered for a range outside the disk.
var ErrRange = errors.New("range outside the disk")

// Kind says what a range holds.
type Kind uint8

// The kinds. Zero and Unmapped both read as zeros; Unmapped has no space allocated.
const (
	Data Kind = iota + 1
	Zero
	Unmapped
	// Absent ranges of a Layer belong to what is below it. A base has none.
	Absent
)

// Extent is the range [Offset, Offset+Length).
type Extent struct {
	Offset, Length int64
	Kind           Kind
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Reader is a disk that can be read whole: a base, or the view through a chain of layers.
type Reader interface {
	// ReadAt fills p or returns an error; it never reads short inside the disk.
	io.ReaderAt
	// Size is the disk's size, a multiple of 512, at least 512.
	Size() int64
	// LogicalSectorSize is 512 or 4096.
	LogicalSectorSize() int
	// Extents yields [off, off+n) in order, without gap or overlap, ending at the first error. Neighbours may
	// have the same kind. Memory is bounded whatever the range.
	Extents(off, n int64) iter.Seq2[Extent, error]
}

// Disk is a base that can be written.
type Disk interface {
	Reader
	io.WriterAt
	io.Closer
	// Zero makes the range read as zeros; its space may stay allocated.
	Zero(off, n int64) error
	// Unmap makes the range read as zeros and releases its space where it can.
	Unmap(off, n int64) error
	// Flush makes every completed write durable. Writes may go on beside it; they may or may not be included.
	Flush() error
	// AllocatedBytes is the space the disk takes on its host; false when that cannot be known.
	AllocatedBytes() (int64, bool)
}

// Layer is a differencing disk. Its Extents may be Absent, its ReadAt refuses absent ranges with ErrAbsent, and
// writes are in multiples of 4 KiB but for the disk's own end: nothing is ever read from below to complete one.
type Layer interface {
	Disk
	// Seal flushes and writes the parent into the header: from here another program that opens the file sees
	// the whole disk. parent is the file name of what lies below, parentFormat its format's name.
	Seal(parent, parentFormat string) error
}

// ErrAbsent is answered for reading a range that a Layer leaves to what is below it.
var ErrAbsent = errors.New("range absent from the layer")
