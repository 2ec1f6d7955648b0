package vhdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// regions is what a region table says (MS-VHDX 2.2.3). It has the two that every file needs.
type regions struct {
	bat, metadata span
	// others are regions that are not known and not required.
	others []span
}

const regionRequired = 1

func (r *regions) encode() []byte {
	p := make([]byte, regionTableSize)
	order := binary.LittleEndian
	copy(p, "regi")
	order.PutUint32(p[8:], 2)
	for i, region := range []struct {
		id guid
		at span
	}{{regionBAT, r.bat}, {regionMetadata, r.metadata}} {
		entry := p[16+32*i:]
		putGUID(entry, region.id)
		order.PutUint64(entry[16:], uint64(region.at.offset))
		order.PutUint32(entry[24:], uint32(region.at.length))
		order.PutUint32(entry[28:], regionRequired)
	}
	order.PutUint32(p[4:], checksum(p))
	return p
}

// errTable is in the chain of the error for a region table that is not whole, so that the other one is tried.
var errTable = errors.New("not whole")

// maxOtherRegions bounds what is remembered of regions that are not known: nobody makes any.
const maxOtherRegions = 64

// parseRegions reads a region table of regionTableSize bytes.
func parseRegions(p []byte) (*regions, error) {
	order := binary.LittleEndian
	switch {
	case len(p) < regionTableSize || !bytes.HasPrefix(p, []byte("regi")):
		return nil, fmt.Errorf("%w: it has no signature", errTable)
	case order.Uint32(p[4:]) != checksum(p[:regionTableSize]):
		return nil, fmt.Errorf("%w: its checksum does not match", errTable)
	}
	count := order.Uint32(p[8:])
	if count > maxTableEntries {
		return nil, corrupt("its region table has %d entries", count)
	}
	var r regions
	for i := range int(count) {
		if err := r.add(p[16+32*i:][:32]); err != nil {
			return nil, err
		}
	}
	if r.bat.length == 0 || r.metadata.length == 0 {
		return nil, corrupt("its region table lacks the BAT or the metadata region")
	}
	return &r, nil
}

func (r *regions) add(entry []byte) error {
	order := binary.LittleEndian
	id := getGUID(entry)
	at := span{int64(min(order.Uint64(entry[16:]), math.MaxInt64)), int64(order.Uint32(entry[24:]))}
	required := order.Uint32(entry[28:])&regionRequired != 0
	switch {
	case at.offset > maxFileSize:
		return corrupt("region %s lies at %d", id, at.offset)
	case id == regionBAT && r.bat.length == 0:
		r.bat = at
	case id == regionMetadata && r.metadata.length == 0:
		r.metadata = at
	case id == regionBAT || id == regionMetadata:
		return corrupt("its region table has region %s twice", id)
	case required:
		return unsupported("it needs the region %s", id)
	case len(r.others) == maxOtherRegions:
		return unsupported("it has more than %d regions that are not known", maxOtherRegions)
	default:
		r.others = append(r.others, at)
	}
	return nil
}

// check holds the regions and the log against each other and a file of size bytes.
func (r *regions) check(log span, size int64) error {
	all := append([]span{log, r.bat, r.metadata}, r.others...)
	for i, one := range all {
		if !one.inside(size) {
			return corrupt("the region of %d bytes at %d does not lie in the file of %d bytes", one.length, one.offset, size)
		}
		for _, other := range all[:i] {
			if one.overlaps(other) {
				return corrupt("the regions at %d and %d overlap", one.offset, other.offset)
			}
		}
	}
	return nil
}

// taken says whether at meets the header area, the log or a region.
func (r *regions) taken(log, at span) bool {
	if at.offset < headerAreaSize || at.overlaps(log) || at.overlaps(r.bat) || at.overlaps(r.metadata) {
		return true
	}
	for _, other := range r.others {
		if at.overlaps(other) {
			return true
		}
	}
	return false
}
