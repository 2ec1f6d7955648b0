package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable/durabletest"
)

// promises is what a state must and may hold.
type promises struct {
	created bool
	flushed flushed
	// may holds the stamps written after the flush, by subcluster.
	may map[int64][]uint64
	// parents are those that the header may name, sealing the last of them while it was not yet promised.
	parents []string
	sealing sealing
}

func promisesOf(crash *durabletest.Crash) *promises {
	p := &promises{may: make(map[int64][]uint64), parents: []string{""}}
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
			}
		case sealing:
			p.parents, p.sealing = append(p.parents, mark.parent), mark
		case sealed:
			p.parents, p.sealing = []string{string(mark)}, sealing{}
		}
	}
	return p
}

// unlessNew forgives that there is no overlay yet.
func (p *promises) unlessNew(err error) error {
	if !p.created {
		return nil
	}
	return err
}

func (p *promises) check(o *qcow2.Overlay) error {
	held := make(map[int64]bool)
	for e, err := range o.Extents(0, o.Size()) {
		if err != nil {
			return err
		}
		if e.Kind == disk.Absent {
			continue
		}
		got := make([]byte, e.Length)
		if _, err := o.ReadAt(got, e.Offset); err != nil {
			return err
		}
		for at := int64(0); at < e.Length; at += grain {
			g := (e.Offset + at) / grain
			held[g] = true
			if err := p.checkContent(g, got[at:min(at+grain, e.Length)]); err != nil {
				return err
			}
		}
	}
	for g := range p.flushed {
		if !held[g] {
			return fmt.Errorf("subcluster %d was flushed and is absent", g)
		}
	}
	return nil
}

// checkContent asks each sector to be of the flushed stamp or of a later one.
func (p *promises) checkContent(g int64, got []byte) error {
	if p.allows(g, got) {
		return nil // all of it is of one stamp
	}
	for ; len(got) > 0; got = got[512:] {
		if sector := got[:512]; !p.allows(g, sector) {
			return fmt.Errorf("subcluster %d holds %x, of %d and %d", g, sector[:8], p.flushed[g], p.may[g])
		}
	}
	return nil
}

func (p *promises) allows(g int64, got []byte) bool {
	stamp, ok := p.flushed[g]
	of := binary.BigEndian.Uint64(got)
	return (ok && of == stamp || slices.Contains(p.may[g], of)) && carries(got, of)
}
