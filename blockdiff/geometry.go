package blockdiff

import (
	"errors"
	"fmt"
)

// Sizes in bytes, and how they divide each other. They are part of the proof and of the wire.
const (
	SubBlockSize      = 4 << 10
	BlockSize         = 64 << 10
	SegmentSize       = 16 << 20
	SubBlocksPerBlock = BlockSize / SubBlockSize
	BlocksPerSegment  = SegmentSize / BlockSize

	// MaxDiskSize is 64 TiB.
	MaxDiskSize = 64 << 40
	// sizeUnit is what every disk size is a multiple of.
	sizeUnit = 512
)

// ErrGeometry is answered for a disk size that no Geometry has.
var ErrGeometry = errors.New("disk size not supported")

// Geometry is a disk's size and what follows from it. It is comparable; the zero value is a disk of no bytes,
// on which nothing lies.
type Geometry struct {
	size int64
}

// NewGeometry describes a disk of size bytes: a multiple of 512, from 512 to MaxDiskSize, else ErrGeometry.
func NewGeometry(size int64) (Geometry, error) {
	switch {
	case size < sizeUnit:
		return Geometry{}, fmt.Errorf("%w: %d bytes is less than %d", ErrGeometry, size, sizeUnit)
	case size > MaxDiskSize:
		return Geometry{}, fmt.Errorf("%w: %d bytes is more than %d", ErrGeometry, size, int64(MaxDiskSize))
	case size%sizeUnit != 0:
		return Geometry{}, fmt.Errorf("%w: %d bytes is not a multiple of %d", ErrGeometry, size, sizeUnit)
	}
	return Geometry{size: size}, nil
}

// Size is the disk's size in bytes.
func (g Geometry) Size() int64 { return g.size }

// Blocks counts the blocks; the last may be short.
func (g Geometry) Blocks() int64 { return ceilDiv(g.size, BlockSize) }

// Segments counts the segments; the last may have fewer blocks.
func (g Geometry) Segments() int64 { return ceilDiv(g.size, SegmentSize) }

// BlockRange is the byte range of a block. The length is 0 for a block that the disk does not have.
func (g Geometry) BlockRange(block int64) (offset, length int64) {
	return g.piece(block, g.Blocks(), BlockSize)
}

// SegmentRange is the byte range of a segment. The length is 0 for a segment that the disk does not have.
func (g Geometry) SegmentRange(segment int64) (offset, length int64) {
	return g.piece(segment, g.Segments(), SegmentSize)
}

// FirstBlock is the first block of a segment; the number of blocks for a segment beyond the disk, as for a cursor at
// its end.
func (g Geometry) FirstBlock(segment int64) int64 {
	if segment >= g.Segments() {
		return g.Blocks()
	}
	return segment * BlocksPerSegment
}

// SegmentBlocks is the first block of a segment and how many it has, 1 to BlocksPerSegment. The count is 0 for a
// segment that the disk does not have.
func (g Geometry) SegmentBlocks(segment int64) (first, count int64) {
	offset, length := g.SegmentRange(segment)
	return offset / BlockSize, ceilDiv(length, BlockSize)
}

// piece is the byte range of one of count pieces of unit bytes.
func (g Geometry) piece(index, count, unit int64) (offset, length int64) {
	if index < 0 || index >= count {
		return 0, 0
	}
	offset = index * unit
	return offset, min(unit, g.size-offset)
}

// subBlocks counts the sub-blocks; the last may be short.
func (g Geometry) subBlocks() int64 { return ceilDiv(g.size, SubBlockSize) }

func ceilDiv(n, unit int64) int64 { return (n + unit - 1) / unit }
