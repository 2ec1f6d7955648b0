package vhd

import (
	"encoding/binary"
	"math/bits"

	"vmreplica/internal/disk"
)

const (
	headerSize   = 1024
	headerCookie = "cxsparse"
	// absentEntry is the BAT's for a block without a place.
	absentEntry = 0xffffffff

	// minBlock and maxBlock bound the blocks that are read; Windows makes 512 KiB and 2 MiB.
	minBlock = grainSize
	maxBlock = 256 << 20
)

// Where the header's fields lie.
const (
	headerDataOffset = 8
	headerBAT        = 16
	headerVersion    = 24
	headerEntries    = 28
	headerBlock      = 32
	headerChecksum   = 36
	headerParentID   = 40
	headerParentTime = 56
	headerParentName = 64
	headerLocators   = 576
	headerReserved   = 768

	locators     = 8
	locatorSize  = 24
	maxNameUnits = 256
)

// Where Create puts things. The header's second place follows the header; locator data of a differencing disk has
// two places, so that what a header names is not overwritten before another header names something else.
const (
	headerAt       = footerSize
	secondHeaderAt = headerAt + headerSize
	relativeBytes  = 4096
	absoluteBytes  = 8192
	locatorBytes   = relativeBytes + absoluteBytes
	firstLocatorAt = 4096
	dynamicBAT     = 4096
	differenceBAT  = firstLocatorAt + 2*locatorBytes
)

// header is the two sectors as they are in the file.
type header [headerSize]byte

func newHeader(bat, entries, block int64) *header {
	h := new(header)
	order := binary.BigEndian
	copy(h[:], headerCookie)
	order.PutUint64(h[headerDataOffset:], noOffset)
	order.PutUint64(h[headerBAT:], uint64(bat))
	order.PutUint32(h[headerVersion:], formatVersion)
	order.PutUint32(h[headerEntries:], uint32(entries))
	order.PutUint32(h[headerBlock:], uint32(block))
	h.sum()
	return h
}

func (h *header) sum() {
	binary.BigEndian.PutUint32(h[headerChecksum:], checksum(h[:], headerChecksum))
}

// parseHeader refuses what is no header and one with a wrong checksum.
func parseHeader(p []byte) (*header, error) {
	h := (*header)(p)
	order := binary.BigEndian
	if string(h[:len(headerCookie)]) != headerCookie {
		return nil, corrupt("there is no header of a dynamic disk")
	}
	if got, want := order.Uint32(h[headerChecksum:]), checksum(h[:], headerChecksum); got != want {
		return nil, corrupt("the header's checksum is %#08x, its bytes have %#08x", got, want)
	}
	if version := order.Uint32(h[headerVersion:]); version>>16 != formatVersion>>16 {
		return nil, unsupported("header version %d.%d is not known", version>>16, version&0xffff)
	}
	return h, nil
}

func (h *header) bat() uint64           { return binary.BigEndian.Uint64(h[headerBAT:]) }
func (h *header) entries() int64        { return int64(binary.BigEndian.Uint32(h[headerEntries:])) }
func (h *header) block() int64          { return int64(binary.BigEndian.Uint32(h[headerBlock:])) }
func (h *header) parent() disk.Identity { return disk.Identity(h[headerParentID:]) }

// check holds a header that lies at the given place against the disk's size and the file's.
func (h *header) check(at, size, fileSize int64) error {
	block := h.block()
	if block < minBlock || block > maxBlock || bits.OnesCount64(uint64(block)) != 1 {
		return unsupported("blocks of %d bytes; powers of two from %d to %d are read", block, minBlock, maxBlock)
	}
	needed := (size + block - 1) / block
	if h.entries() < needed {
		return corrupt("a BAT of %d entries for a disk of %d blocks", h.entries(), needed)
	}
	if bat := h.bat(); bat < secondHeaderAt || bat%sectorSize != 0 || bat > uint64(fileSize) ||
		batBytes(needed) > fileSize-int64(bat) {
		return corrupt("the BAT at %d lies outside the file of %d bytes", bat, fileSize)
	} else if int64(bat) < at+headerSize && int64(bat)+batBytes(needed) > at {
		return corrupt("the BAT at %d lies over the header at %d", bat, at)
	}
	return nil
}

// batBytes is what a BAT of so many entries takes, in whole sectors.
func batBytes(entries int64) int64 { return roundUp(entries*4, sectorSize) }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
