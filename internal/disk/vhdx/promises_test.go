package vhdx_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
)

// promises is what a state must and may hold.
type promises struct {
	created bool
	flushed flushed
	// may holds the stamps written after the flush, by grain.
	may map[int64][]uint64
	// parents and identities are those that the header may have; any identity when there are none.
	parents    []string
	identities []disk.Identity
	// before is the identity before the last session, since the stamps that the session wrote.
	before disk.Identity
	since  map[int64][]uint64
}

func promisesOf(crash *durabletest.Crash) *promises {
	p := &promises{may: make(map[int64][]uint64), since: make(map[int64][]uint64), parents: []string{""}}
	session := true // identities are free until one is given, and stand for the session
	for _, mark := range crash.Marks() {
		switch mark := mark.(type) {
		case created:
			p.created = true
		case flushed:
			p.flushed = mark
			clear(p.may)
		case added:
			p.flushed = maps.Clone(p.flushed)
			if p.flushed == nil {
				p.flushed = make(flushed)
			}
			maps.Copy(p.flushed, mark)
		case change:
			for g := mark.first; g < mark.first+mark.count; g++ {
				p.may[g] = append(p.may[g], mark.stamp)
				p.since[g] = append(p.since[g], mark.stamp)
			}
		case sealing:
			p.parents = append(p.parents, string(mark))
		case sealed:
			p.parents = []string{string(mark)}
		case naming:
			p.identities = nil
		case named:
			p.identities, session = []disk.Identity{disk.Identity(mark)}, true
		case reopened:
			session, p.before = false, disk.Identity(mark)
			clear(p.since)
		case anyParty:
			if !session {
				p.identities = nil
			}
		}
	}
	return p
}

// reopened marks that a session ended, with the file's identity.
type reopened disk.Identity

// unlessNew forgives that there is no file yet.
func (p *promises) unlessNew(err error) error {
	if !p.created {
		return nil
	}
	return err
}

func (p *promises) check(m *model, d image) error {
	buffer := make([]byte, 64*grain)
	for e, err := range d.Extents(0, d.Size()) {
		if err != nil {
			return err
		}
		if e.Kind != disk.Data {
			continue
		}
		if err := p.checkExtent(m, d, e, buffer); err != nil {
			return err
		}
	}
	for g := range p.flushed {
		got := buffer[:min(grain, d.Size()-g*grain)]
		if _, err := d.ReadAt(got, g*grain); err != nil {
			return fmt.Errorf("grain %d was flushed: %w", g, err)
		}
		if err := p.checkContent(m, g, got); err != nil {
			return err
		}
		if d.Identity() == p.before && slices.Contains(p.since[g], binary.BigEndian.Uint64(got)) {
			return fmt.Errorf("grain %d changed and the identity did not", g)
		}
	}
	return nil
}

// checkExtent reads data by way of the buffer.
func (p *promises) checkExtent(m *model, d image, e disk.Extent, buffer []byte) error {
	for at := e.Offset; at < e.End(); {
		part := buffer[:min(int64(len(buffer))-at%grain, e.End()-at)]
		if _, err := d.ReadAt(part, at); err != nil {
			return err
		}
		for len(part) > 0 {
			n := min(grain-at%grain, int64(len(part)))
			if err := p.checkContent(m, at/grain, part[:n]); err != nil {
				return err
			}
			part, at = part[n:], at+n
		}
	}
	return nil
}

// checkContent asks each sector to be of the flushed stamp or of a later one.
func (p *promises) checkContent(m *model, g int64, got []byte) error {
	if p.allows(m, g, got) {
		return nil // all of it is of one stamp
	}
	for ; len(got) > 0; got = got[min(512, len(got)):] {
		if sector := got[:min(512, len(got))]; !p.allows(m, g, sector) {
			return fmt.Errorf("grain %d holds %x, of %d and %d", g, sector[:8], p.flushed[g], p.may[g])
		}
	}
	return nil
}

func (p *promises) allows(m *model, g int64, got []byte) bool {
	stamp, ok := p.flushed[g]
	of := binary.BigEndian.Uint64(got)
	return ((ok || !m.layer) && of == stamp || slices.Contains(p.may[g], of)) && carries(got, of)
}
