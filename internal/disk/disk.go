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
	"fmt"
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

// Stamper is a disk that can say how it stands on its host. Stamp syncs first, so that everything written until
// then shows in it, and one taken after the last write of its owner differs from any taken after a later write.
type Stamper interface {
	Stamp() (Stamp, error)
}

// Image is a base opened where it lies: what the agents hold for a file or a device.
type Image interface {
	Disk
	Stamper
}

// MaxSize bounds a disk: 64 TiB, the largest that VHDX knows.
const MaxSize = 64 << 40

// CheckRange is nil when [off, off+n) lies inside a disk of size bytes, an error wrapping ErrRange otherwise.
func CheckRange(size, off, n int64) error {
	if off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%w: %d bytes at %d of %d", ErrRange, n, off, size)
	}
	return nil
}

// CheckSize refuses a size that no disk can have, or that does not divide into logical sectors of sectorSize
// bytes, which is 512 or 4096.
func CheckSize(size int64, sectorSize int) error {
	switch {
	case sectorSize != 512 && sectorSize != 4096:
		return fmt.Errorf("a logical sector of %d bytes is neither 512 nor 4096", sectorSize)
	case size < 512 || size > MaxSize:
		return fmt.Errorf("its size is %d bytes; a disk has 512 bytes to 64 TiB", size)
	case size%int64(sectorSize) != 0:
		return fmt.Errorf("its size is %d bytes, not a multiple of %d", size, sectorSize)
	}
	return nil
}

// Layer is a differencing disk. Its Extents may be Absent, its ReadAt refuses absent ranges with ErrAbsent, and
// writes are in multiples of 4 KiB but for the disk's own end: nothing is ever read from below to complete one.
type Layer interface {
	Disk
	// Seal flushes and writes the parent into the header: from here another program that opens the file sees
	// the whole disk. Sealing again replaces the parent. The parent is not opened.
	Seal(parent Parent) error
}

// ErrAbsent is answered for reading a range that a Layer leaves to what is below it.
var ErrAbsent = errors.New("range absent from the layer")

// Parent is what a differencing disk's header says of what lies below it.
type Parent struct {
	// Name is the file's name in the differencing disk's own directory, or a device's absolute path.
	Name string
	// Path is where the parent lies, absolute: formats that record both ways write it beside the name.
	Path string
	// Format is its name: raw, vhd, vhdx or qcow2.
	Format string
	// Identity is the parent's own when Seal is called; None where its format has none.
	Identity Identity
}

// Identity is what a format writes into an image to tell its content from other content of the same disk: a VHDX
// file's DataWriteGuid, a VHD file's unique id. A differencing disk names its parent's. The bytes are in the order
// in which the textual GUID has them.
type Identity [16]byte

// None is the identity of an image whose format has none.
var None Identity

// String is the GUID in lower case, in braces.
func (i Identity) String() string {
	return fmt.Sprintf("{%x-%x-%x-%x-%x}", i[:4], i[4:6], i[6:8], i[8:10], i[10:])
}

// Identified is an image whose format has an Identity.
type Identified interface {
	// Identity is the present one.
	Identity() Identity
	// SetIdentity replaces it: a base takes that of the layer that was merged into it, so that what stands on the
	// layer finds it in the base. It is durable when SetIdentity returns, and everything written before it is then
	// durable too.
	SetIdentity(Identity) error
}
