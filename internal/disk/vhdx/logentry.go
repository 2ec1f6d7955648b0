package vhdx

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The log's records (MS-VHDX 2.3). It is a ring of sectors of 4 KiB; an entry may go on at the ring's start.
const (
	logSector         = 4096
	entryHeaderSize   = 64
	descriptorSize    = 32
	dataMiddleAt      = 8
	dataMiddleSize    = 4084
	maxOurDescriptors = (logSector - entryHeaderSize) / descriptorSize
)

// entryHeader begins an entry. tail, flushed and last are FlushedFileOffset and LastFileOffset, bytes.
type entryHeader struct {
	crc         uint32
	length      int64
	tail        int64
	sequence    uint64
	descriptors int64
	guid        guid
	flushed     int64
	last        int64
}

// parseEntryHeader reads the first sector of an entry of a log of length bytes; false when it is none.
func parseEntryHeader(p []byte, id guid, length int64) (entryHeader, bool) {
	if len(p) < entryHeaderSize || !bytes.HasPrefix(p, []byte("loge")) {
		return entryHeader{}, false
	}
	order := binary.LittleEndian
	h := entryHeader{
		crc: order.Uint32(p[4:]), length: int64(order.Uint32(p[8:])), tail: int64(order.Uint32(p[12:])),
		sequence: order.Uint64(p[16:]), descriptors: int64(order.Uint32(p[24:])), guid: getGUID(p[32:]),
		flushed: int64(min(order.Uint64(p[48:]), math.MaxInt64)), last: int64(min(order.Uint64(p[56:]), math.MaxInt64)),
	}
	possible := h.guid == id && h.sequence > 0 &&
		h.length >= logSector && h.length%logSector == 0 && h.length <= length &&
		h.tail%logSector == 0 && h.tail < length &&
		h.descriptorSectors()*logSector <= h.length && h.last <= maxFileSize && h.flushed <= maxFileSize
	return h, possible
}

// descriptorSectors is the number of sectors before the first data sector.
func (h *entryHeader) descriptorSectors() int64 {
	return (entryHeaderSize + h.descriptors*descriptorSize + logSector - 1) / logSector
}

// encode puts the header at the start of an entry that is complete but for it, and its checksum.
func (h *entryHeader) encode(p []byte) {
	order := binary.LittleEndian
	copy(p, "loge")
	order.PutUint32(p[8:], uint32(h.length))
	order.PutUint32(p[12:], uint32(h.tail))
	order.PutUint64(p[16:], h.sequence)
	order.PutUint32(p[24:], uint32(h.descriptors))
	putGUID(p[32:], h.guid)
	order.PutUint64(p[48:], uint64(h.flushed))
	order.PutUint64(p[56:], uint64(h.last))
	order.PutUint32(p[4:], checksum(p))
}

// descriptor is one change: a page of data, or zeros over length bytes. at is the place of the page's data sector
// in the log.
type descriptor struct {
	zero     bool
	target   span
	sequence uint64
	leading  [8]byte
	trailing [4]byte
	at       int64
}

// parseDescriptor reads a descriptor; false when it is none.
func parseDescriptor(p []byte) (descriptor, bool) {
	order := binary.LittleEndian
	offset, sequence := order.Uint64(p[16:]), order.Uint64(p[24:])
	d := descriptor{target: span{int64(min(offset, math.MaxInt64)), pageSize}, sequence: sequence}
	switch {
	case bytes.HasPrefix(p, []byte("desc")):
		copy(d.trailing[:], p[4:])
		copy(d.leading[:], p[8:])
	case bytes.HasPrefix(p, []byte("zero")):
		d.zero = true
		d.target.length = int64(min(order.Uint64(p[8:]), math.MaxInt64))
	default:
		return descriptor{}, false
	}
	aligned := d.target.offset%pageSize == 0 && d.target.length%pageSize == 0 && d.target.length > 0
	return d, aligned && d.target.offset >= firstLogged && d.target.offset <= maxFileSize && d.target.length <= maxFileSize
}

// encodePage puts the descriptor of a page, and its data sector, into an entry.
func encodePage(descriptor, sector []byte, sequence uint64, target int64, page []byte) {
	order := binary.LittleEndian
	copy(descriptor, "desc")
	copy(descriptor[4:8], page[pageSize-4:])
	copy(descriptor[8:16], page)
	order.PutUint64(descriptor[16:], uint64(target))
	order.PutUint64(descriptor[24:], sequence)
	copy(sector, "data")
	order.PutUint32(sector[4:], uint32(sequence>>32))
	copy(sector[dataMiddleAt:], page[8:pageSize-4])
	order.PutUint32(sector[logSector-4:], uint32(sequence))
}

// sequenceOf is the sequence number of a data sector; false when it is none.
func sequenceOf(sector []byte) (uint64, bool) {
	order := binary.LittleEndian
	high, low := order.Uint32(sector[4:]), order.Uint32(sector[logSector-4:])
	return uint64(high)<<32 | uint64(low), bytes.HasPrefix(sector, []byte("data"))
}

// page is what the descriptor puts at its target, of the data sector it belongs to.
func (d *descriptor) page(sector []byte) []byte {
	p := make([]byte, pageSize)
	copy(p, d.leading[:])
	copy(p[8:], sector[dataMiddleAt:dataMiddleAt+dataMiddleSize])
	copy(p[pageSize-4:], d.trailing[:])
	return p
}
