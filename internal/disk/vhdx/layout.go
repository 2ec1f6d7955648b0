package vhdx

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Places and sizes in a file, in bytes (MS-VHDX 2.2 and 2.3).
const (
	mib = 1 << 20

	signature        = "vhdxfile"
	creatorSize      = 512
	headerSize       = 4096
	regionTableSize  = 64 << 10
	firstLogged      = 192 << 10 // nothing below goes through the log
	headerAreaSize   = mib
	metadataTable    = 64 << 10
	maxMetadataItem  = mib
	maxTableEntries  = 2047
	pageSize         = 4096
	bitmapBlockSize  = mib
	sectorsPerBitmap = 8 * bitmapBlockSize
	minBlockSize     = mib
	maxBlockSize     = 256 * mib
	entrySize        = 8
	entriesPerPage   = pageSize / entrySize
	// maxFileSize bounds what is believed of a file: four times the largest disk.
	maxFileSize = 4 * disk.MaxSize
)

var (
	headerPlaces      = [2]int64{64 << 10, 128 << 10}
	regionTablePlaces = [2]int64{192 << 10, 256 << 10}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of p with the four bytes of its checksum field, at 4, taken as zero.
func checksum(p []byte) uint32 {
	var none [4]byte
	sum := crc32.Update(0, castagnoli, p[:4])
	sum = crc32.Update(sum, castagnoli, none[:])
	return crc32.Update(sum, castagnoli, p[8:])
}

// geometry is how the disk lies in the file. Sizes are bytes.
type geometry struct {
	size   int64
	block  int64 // of payload
	sector int64
	ratio  int64 // payload blocks in a chunk
	layer  bool
}

func newGeometry(size, block, sector int64, layer bool) geometry {
	return geometry{size: size, block: block, sector: sector, ratio: sectorsPerBitmap * sector / block, layer: layer}
}

// checkBlockSize refuses what no payload block has.
func checkBlockSize(block int64) error {
	if block < minBlockSize || block > maxBlockSize || bits.OnesCount64(uint64(block)) != 1 {
		return fmt.Errorf("a block size of %d bytes is no power of two between 1 and 256 MiB", block)
	}
	return nil
}

// blocks is the number of payload blocks.
func (g *geometry) blocks() int64 { return (g.size + g.block - 1) / g.block }

// chunks is the number of sector bitmap blocks that a differencing file may have.
func (g *geometry) chunks() int64 { return (g.blocks() + g.ratio - 1) / g.ratio }

// payloadIndex is the place in the BAT of block's entry.
func (g *geometry) payloadIndex(block int64) int64 { return block + block/g.ratio }

// bitmapIndex is the place in the BAT of the entry of chunk's sector bitmap block.
func (g *geometry) bitmapIndex(chunk int64) int64 { return (chunk+1)*g.ratio + chunk }

// entries is the number of entries that the BAT has.
func (g *geometry) entries() int64 {
	if g.layer {
		return g.chunks() * (g.ratio + 1)
	}
	return g.blocks() + (g.blocks()-1)/g.ratio
}

// span is a range of the file.
type span struct{ offset, length int64 }

func (s span) end() int64 { return s.offset + s.length }

func (s span) overlaps(other span) bool { return s.offset < other.end() && other.offset < s.end() }

// inside says whether the span is a whole number of MiB behind the header area, within a file of size bytes.
func (s span) inside(size int64) bool {
	return s.offset >= headerAreaSize && s.offset%mib == 0 && s.length > 0 && s.length%mib == 0 &&
		s.offset <= size && s.length <= size-s.offset
}

// readFull fills p from off; a file that ends before is io.ErrUnexpectedEOF.
func readFull(file durable.File, p []byte, off int64) error {
	n, err := file.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d of the VHDX file: %w", len(p), off, err)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func corrupt(format string, args ...any) error {
	return failure.New(failure.Corrupt, failure.ReasonImageUnreadable, "the VHDX file is damaged: "+format, args...)
}

func unsupported(format string, args ...any) error {
	return failure.New(failure.Unsupported, failure.ReasonUnsupported, "the VHDX file is not supported: "+format, args...)
}

func invalid(format string, args ...any) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, format, args...)
}
