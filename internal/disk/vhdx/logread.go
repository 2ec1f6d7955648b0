package vhdx

import (
	"hash/crc32"
	"slices"

	"vmreplica/internal/durable"
)

// logReader reads entries out of the ring, a part at a time.
type logReader struct {
	file durable.File
	ring span
	guid guid
	// budget is how many bytes may still be read before the log is taken for a trap: entries that are not whole are
	// read in vain, and an honest log has few.
	budget int64
	// look is room for what may be an entry's header; most sectors of a log hold none.
	look [entryHeaderSize]byte
}

// activeSequence is the entries that a replay applies, from the oldest still needed to the head.
type activeSequence struct {
	// at is the first entry's place in the ring, number its sequence number.
	at      int64
	number  uint64
	entries int
	head    entryHeader
}

// findActive finds the valid sequence of the highest number (MS-VHDX 2.3.3); one that holds no entry at all is nil.
func (r *logReader) findActive() (*activeSequence, error) {
	r.budget = 16*r.ring.length + 64*mib
	var active *activeSequence
	for at := int64(0); at < r.ring.length; {
		found, length, err := r.sequenceAt(at)
		if err != nil {
			return nil, err
		}
		if found != nil && (active == nil || found.head.sequence > active.head.sequence) {
			active = found
		}
		at += max(length, logSector)
	}
	return active, nil
}

// sequenceAt reads the entries that follow one another from at on. length is that of all of them; the sequence is
// nil when its head needs an entry that is not among them.
func (r *logReader) sequenceAt(at int64) (found *activeSequence, length int64, err error) {
	var places []uint32 // in sectors
	var head entryHeader
	for length < r.ring.length {
		next := (at + length) % r.ring.length
		header, whole, err := r.read(next, nil)
		if err != nil {
			return nil, 0, err
		}
		if !whole || length+header.length > r.ring.length ||
			len(places) > 0 && header.sequence != head.sequence+1 {
			break
		}
		head = header
		places = append(places, uint32(next/logSector))
		length += header.length
	}
	if len(places) == 0 {
		return nil, 0, nil
	}
	i := slices.Index(places, uint32(head.tail/logSector))
	if i < 0 {
		return nil, length, nil
	}
	return &activeSequence{head.tail, head.sequence - uint64(len(places)-1-i), len(places) - i, head}, length, nil
}

// read reads the entry at a place of the ring and checks all of it. Each descriptor is given to visit, when there is
// one, before it is known whether the entry is whole.
func (r *logReader) read(at int64, visit func(descriptor, []byte) error) (entryHeader, bool, error) {
	if err := r.sector(r.look[:], at); err != nil {
		return entryHeader{}, false, err
	}
	if _, possible := parseEntryHeader(r.look[:], r.guid, r.ring.length); !possible {
		return entryHeader{}, false, nil
	}
	first := make([]byte, logSector)
	if err := r.sector(first, at); err != nil {
		return entryHeader{}, false, err
	}
	header, possible := parseEntryHeader(first, r.guid, r.ring.length)
	if !possible {
		return entryHeader{}, false, nil
	}
	if r.budget -= header.length; r.budget < 0 {
		return entryHeader{}, false, corrupt("its log is made of entries that are not whole")
	}
	e := &entryScan{reader: r, header: header, at: at, visit: visit}
	whole, err := e.run(first)
	return header, whole, err
}

// sector reads a sector of the ring, or its beginning.
func (r *logReader) sector(p []byte, at int64) error {
	return readFull(r.file, p, r.ring.offset+at%r.ring.length)
}

// entryScan goes once through an entry: descriptors are read beside the data sectors that belong to them.
type entryScan struct {
	reader *logReader
	header entryHeader
	at     int64
	visit  func(descriptor, []byte) error
	crc    uint32
	data   int64 // data sectors so far
}

// run checks the entry, whose first sector is given.
func (e *entryScan) run(first []byte) (whole bool, err error) {
	zeroed := slices.Clone(first)
	clear(zeroed[4:8])
	e.crc = crc32.Update(0, castagnoli, zeroed)
	sector := slices.Clone(first)
	descriptors := e.header.descriptorSectors()
	buffer := make([]byte, logSector)
	for i := range descriptors {
		if i > 0 {
			if err := e.reader.sector(sector, e.at+i*logSector); err != nil {
				return false, err
			}
		}
		if good, err := e.descriptors(sector, i, buffer); err != nil || !good {
			return false, err
		}
	}
	if (descriptors+e.data)*logSector != e.header.length {
		return false, nil
	}
	return e.checksum()
}

// descriptors takes the descriptors of the i-th sector.
func (e *entryScan) descriptors(sector []byte, i int64, buffer []byte) (good bool, err error) {
	from, done := int64(entryHeaderSize), int64(0)
	if i > 0 {
		from, done = 0, (logSector-entryHeaderSize)/descriptorSize+(i-1)*(logSector/descriptorSize)
	}
	for ; from < logSector && done < e.header.descriptors; from, done = from+descriptorSize, done+1 {
		d, ok := parseDescriptor(sector[from : from+descriptorSize])
		if !ok || d.sequence != e.header.sequence || d.target.overlaps(e.reader.ring) {
			return false, nil
		}
		if !d.zero {
			d.at = e.at + (e.header.descriptorSectors()+e.data)*logSector
			e.data++
			if d.at-e.at >= e.header.length {
				return false, nil
			}
			if err := e.reader.sector(buffer, d.at); err != nil {
				return false, err
			}
			if number, ok := sequenceOf(buffer); !ok || number != e.header.sequence {
				return false, nil
			}
		}
		if e.visit == nil {
			continue
		}
		if err := e.visit(d, buffer); err != nil {
			return false, err
		}
	}
	return true, nil
}

// checksum reads what follows the first sector and compares.
func (e *entryScan) checksum() (bool, error) {
	buffer := make([]byte, 16*logSector)
	for at := int64(logSector); at < e.header.length; {
		place := (e.at + at) % e.reader.ring.length
		n := min(int64(len(buffer)), e.header.length-at, e.reader.ring.length-place)
		if err := e.reader.sector(buffer[:n], place); err != nil {
			return false, err
		}
		e.crc = crc32.Update(e.crc, castagnoli, buffer[:n])
		at += n
	}
	return e.crc == e.header.crc, nil
}

// replay gives every change of the sequence to visit, oldest first.
func (r *logReader) replay(s *activeSequence, visit func(descriptor, []byte) error) error {
	at := s.at
	for i := range s.entries {
		header, whole, err := r.read(at, visit)
		if err != nil {
			return err
		}
		if !whole || header.sequence != s.number+uint64(i) {
			return corrupt("its log changed while it was read")
		}
		at = (at + header.length) % r.ring.length
	}
	return nil
}
