package blockdiff

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// Limits of one frame.
const (
	// MaxFramePlaintext bounds the content of a frame's data extents, in bytes.
	MaxFramePlaintext = 4 << 20
	// MaxFrameExtents bounds the number of a frame's extents.
	MaxFrameExtents = 65536
)

// ErrFrame is answered for a frame that cannot be what a correct peer sends, and for an extent that no frame can
// hold.
var ErrFrame = errors.New("invalid frame")

// ExtentKind says what an extent holds.
type ExtentKind uint8

// The kinds of extents. Zero and unmapped ones both read as zeros; unmapped ones need no space.
const (
	ExtentData ExtentKind = iota + 1
	ExtentZero
	ExtentUnmapped
)

// String names the kind.
func (k ExtentKind) String() string {
	switch k {
	case ExtentData:
		return "data"
	case ExtentZero:
		return "zero"
	case ExtentUnmapped:
		return "unmapped"
	default:
		return fmt.Sprintf("extent kind %d", uint8(k))
	}
}

// Extent is the byte range [Offset, Offset+Length) of a disk. Offset is a multiple of SubBlockSize; Length is
// one too, except where the extent ends at the disk's end.
type Extent struct {
	Offset, Length int64
	Kind           ExtentKind
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Frame is a list of extents with the content of its data extents, as it is on the wire.
type Frame struct {
	// Extents are coded as docs/wire.md says: at most MaxFrameExtents of them, applied in order.
	Extents []byte
	// Codec is what Payload is coded with.
	Codec Codec
	// PlaintextBytes is the length of the content, PlaintextDigest its xxh64 with seed 0.
	PlaintextBytes  uint32
	PlaintextDigest uint64
	// Payload is the content of the data extents, one after another, coded.
	Payload []byte
}

// checkExtent says whether an extent lies on the disk, aligned, with a known kind.
func checkExtent(g Geometry, extent Extent) error {
	switch {
	case extent.Kind < ExtentData || extent.Kind > ExtentUnmapped:
		return fmt.Errorf("%w: unknown extent kind %d", ErrFrame, uint8(extent.Kind))
	case extent.Offset < 0 || extent.Length <= 0 || extent.Offset > g.size || extent.Length > g.size-extent.Offset:
		return fmt.Errorf("%w: extent of %d bytes at %d leaves a disk of %d bytes",
			ErrFrame, extent.Length, extent.Offset, g.size)
	case extent.Offset%SubBlockSize != 0:
		return fmt.Errorf("%w: extent offset %d is not a multiple of %d", ErrFrame, extent.Offset, SubBlockSize)
	case extent.Length%SubBlockSize != 0 && extent.End() != g.size:
		return fmt.Errorf("%w: extent length %d is not a multiple of %d", ErrFrame, extent.Length, SubBlockSize)
	}
	return nil
}

// codeExtents codes a list of extents and counts its data bytes.
func codeExtents(g Geometry, extents []Extent) (coded []byte, plaintext int64, err error) {
	if len(extents) == 0 || len(extents) > MaxFrameExtents {
		return nil, 0, fmt.Errorf("%w: %d extents, expected 1 to %d", ErrFrame, len(extents), MaxFrameExtents)
	}
	coded = make([]byte, 0, 4*len(extents))
	var next int64
	for _, extent := range extents {
		if err := checkExtent(g, extent); err != nil {
			return nil, 0, err
		}
		first, count := extent.Offset/SubBlockSize, ceilDiv(extent.Length, SubBlockSize)
		coded = binary.AppendVarint(coded, first-next)
		coded = binary.AppendUvarint(coded, uint64(count)<<kindBits|uint64(extent.Kind))
		next = first + count
		if extent.Kind == ExtentData {
			plaintext += extent.Length
		}
	}
	return coded, plaintext, nil
}

// kindBits is how many bits of a coded length hold the kind.
const kindBits = 2

// extentReader reads a coded list of extents one by one.
type extentReader struct {
	geometry Geometry
	rest     []byte
	next     int64 // the sub-block after the last extent
}

func (r *extentReader) more() bool { return len(r.rest) > 0 }

// read is the next extent, inside the disk and aligned.
func (r *extentReader) read() (Extent, error) {
	zigzag, err := r.uvarint()
	if err != nil {
		return Extent{}, err
	}
	length, err := r.uvarint()
	if err != nil {
		return Extent{}, err
	}
	total := r.geometry.subBlocks()
	delta := int64(zigzag>>1) ^ -int64(zigzag&1)
	// next is 0 to total, so none of these differences overflows.
	if delta < -r.next || delta >= total-r.next {
		return Extent{}, fmt.Errorf("%w: extent %d sub-blocks from sub-block %d leaves a disk of %d sub-blocks",
			ErrFrame, delta, r.next, total)
	}
	first, count, kind := r.next+delta, length>>kindBits, ExtentKind(length&(1<<kindBits-1))
	if count == 0 || count > uint64(total-first) {
		return Extent{}, fmt.Errorf("%w: extent of %d sub-blocks at sub-block %d leaves a disk of %d sub-blocks",
			ErrFrame, count, first, total)
	}
	r.next = first + int64(count)
	extent := Extent{Offset: first * SubBlockSize, Kind: kind}
	extent.Length = min(r.next*SubBlockSize, r.geometry.size) - extent.Offset
	return extent, checkExtent(r.geometry, extent)
}

// uvarint reads one number in its shortest coding.
func (r *extentReader) uvarint() (uint64, error) {
	value, n := binary.Uvarint(r.rest)
	if n <= 0 {
		return 0, fmt.Errorf("%w: truncated or overlong number in the extents", ErrFrame)
	}
	if n != max(1, (bits.Len64(value)+6)/7) {
		return 0, fmt.Errorf("%w: number in the extents is not in its shortest coding", ErrFrame)
	}
	r.rest = r.rest[n:]
	return value, nil
}

// checkExtents reads a whole list and says whether its data extents hold exactly plaintext bytes.
func checkExtents(g Geometry, coded []byte, plaintext int64) error {
	reader := extentReader{geometry: g, rest: coded}
	var extents, bytes int64
	for reader.more() {
		if extents++; extents > MaxFrameExtents {
			return fmt.Errorf("%w: more than %d extents", ErrFrame, MaxFrameExtents)
		}
		extent, err := reader.read()
		if err != nil {
			return err
		}
		if extent.Kind == ExtentData {
			bytes += extent.Length
		}
		if bytes > plaintext {
			return fmt.Errorf("%w: data extents hold more than the declared %d bytes", ErrFrame, plaintext)
		}
	}
	switch {
	case extents == 0:
		return fmt.Errorf("%w: no extents", ErrFrame)
	case bytes != plaintext:
		return fmt.Errorf("%w: data extents hold %d bytes, declared are %d", ErrFrame, bytes, plaintext)
	}
	return nil
}
