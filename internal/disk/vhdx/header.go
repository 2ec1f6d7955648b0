package vhdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"vmreplica/internal/durable"
)

// header is one of the two at 64 and 128 KiB (MS-VHDX 2.2.2). The one with the larger sequence number counts.
type header struct {
	sequence  uint64
	fileWrite guid
	dataWrite guid
	logGUID   guid // None when there is nothing to replay
	log       span
}

func (h *header) encode() []byte {
	p := make([]byte, headerSize)
	order := binary.LittleEndian
	copy(p, "head")
	order.PutUint64(p[8:], h.sequence)
	putGUID(p[16:], h.fileWrite)
	putGUID(p[32:], h.dataWrite)
	putGUID(p[48:], h.logGUID)
	order.PutUint16(p[66:], 1)
	order.PutUint32(p[68:], uint32(h.log.length))
	order.PutUint64(p[72:], uint64(h.log.offset))
	order.PutUint32(p[4:], checksum(p))
	return p
}

// errVersion is in the chain of the error for a header that is whole, but of a version that is not known.
var errVersion = errors.New("unknown version")

// parseHeader reads a header of headerSize bytes.
func parseHeader(p []byte) (*header, error) {
	order := binary.LittleEndian
	switch {
	case len(p) < headerSize || !bytes.HasPrefix(p, []byte("head")):
		return nil, errors.New("it has no signature")
	case order.Uint32(p[4:]) != checksum(p[:headerSize]):
		return nil, errors.New("its checksum does not match")
	case order.Uint16(p[66:]) != 1 || order.Uint16(p[64:]) != 0:
		return nil, fmt.Errorf("%w %d, log version %d", errVersion, order.Uint16(p[66:]), order.Uint16(p[64:]))
	}
	h := &header{
		sequence:  order.Uint64(p[8:]),
		fileWrite: getGUID(p[16:]),
		dataWrite: getGUID(p[32:]),
		logGUID:   getGUID(p[48:]),
		log:       span{int64(min(order.Uint64(p[72:]), math.MaxInt64)), int64(order.Uint32(p[68:]))},
	}
	if h.sequence >= math.MaxInt64 {
		return nil, fmt.Errorf("its sequence number is %d", h.sequence)
	}
	return h, nil
}

// headerPair is what the file has for headers. errs says what is wrong with one; current is the place of the one
// that counts.
type headerPair struct {
	headers [2]*header
	errs    [2]error
	current int
}

// readHeaders reads both; it fails when none counts.
func readHeaders(file durable.File) (*headerPair, error) {
	var pair headerPair
	for i, place := range headerPlaces {
		p := make([]byte, headerSize)
		if err := readFull(file, p, place); err != nil {
			return nil, err
		}
		pair.headers[i], pair.errs[i] = parseHeader(p)
	}
	first, second := pair.headers[0], pair.headers[1]
	switch {
	case first == nil && second == nil && errors.Is(pair.errs[0], errVersion):
		return nil, unsupported("its header has an %w", pair.errs[0])
	case first == nil && second == nil:
		return nil, corrupt("neither header can be used: the first, at %d: %v; the second, at %d: %v",
			headerPlaces[0], pair.errs[0], headerPlaces[1], pair.errs[1])
	case first == nil:
		pair.current = 1
	case second == nil:
	case first.sequence == second.sequence && *first != *second:
		return nil, corrupt("its two headers differ and have the same sequence number %d", first.sequence)
	case second.sequence > first.sequence:
		pair.current = 1
	}
	return &pair, nil
}

// checkLog refuses a log that does not lie in a file of size bytes.
func (h *header) checkLog(size int64) error {
	if !h.log.inside(size) {
		return corrupt("its header has a log of %d bytes at %d, in a file of %d bytes", h.log.length, h.log.offset, size)
	}
	return nil
}
