package vhd_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// promises is what a state must and may hold.
type promises struct {
	created bool
	// differencing: what was not written is absent, and not zeros.
	differencing bool
	flushed      flushed
	may          map[int64][]uint64
	// names are what it may be, naming the last of them while it was not yet promised.
	names  []named
	naming naming
}

func promisesOf(crash *durabletest.Crash, differencing bool) *promises {
	p := &promises{differencing: differencing, may: make(map[int64][]uint64)}
	for _, mark := range crash.Marks() {
		switch mark := mark.(type) {
		case created:
			p.created = true
		case flushed:
			p.flushed = mark
			clear(p.may)
		case change:
			p.may[mark.grain] = append(p.may[mark.grain], mark.stamp)
		case naming:
			p.names, p.naming = append(p.names, mark.named), mark
		case named:
			p.names, p.naming = []named{mark}, naming{}
		}
	}
	return p
}

// checkCrash holds a state against what was promised before it.
func checkCrash(crash *durabletest.Crash, differencing bool) error {
	p := promisesOf(crash, differencing)
	i, err := openCrashed(crash.Dir(), differencing, durable.ReadOnly)
	if err != nil {
		if p.created {
			return err
		}
		return nil
	}
	if err := p.checkName(i); err != nil {
		return err
	}
	if err := checkFile(crash); err != nil {
		return err
	}
	return p.check(i)
}

// checkName asks for the identity and the parent that were promised last, or that were under way.
func (p *promises) checkName(i image) error {
	if !p.created {
		return nil
	}
	found := named{identity: i.Identity()}
	if layer, ok := i.(*vhd.Layer); ok {
		parent := layer.Parent()
		found.parent = parent.Name
		if parent != (disk.Parent{}) && (parent.Path != "/images/"+parent.Name ||
			parent.Identity != disk.Identity{byte(len(parent.Name))}) {
			return fmt.Errorf("the parent is a mixture: %+v", parent)
		}
	}
	if !slices.Contains(p.names, found) {
		return fmt.Errorf("it is %+v, of %+v", found, p.names)
	}
	if found == p.naming.named {
		p.flushed = p.naming.stamps
	}
	return nil
}

// checkFile asks that Check finds leaks and what Open mends, but no block out of place.
func checkFile(crash *durabletest.Crash) error {
	file, err := crash.Dir().Open("disk", durable.ReadWrite)
	if err != nil {
		return err
	}
	i, err := reopenAny(file)
	if err != nil {
		return err
	}
	for finding, err := range vhd.Check(file) {
		if err != nil || finding.Severity != disk.Leaked {
			return fmt.Errorf("after mending: %s %v", finding.Message, err)
		}
	}
	return i.Close()
}

func reopenAny(file durable.File) (io.Closer, error) {
	info, err := vhd.Describe(file)
	if err != nil {
		return nil, err
	}
	if info.Kind == "differencing" {
		return vhd.OpenDifferencing(file, durable.ReadWrite)
	}
	return vhd.Open(file, durable.ReadWrite)
}

func (p *promises) check(i image) error {
	held := make(map[int64]bool)
	for e, err := range i.Extents(0, i.Size()) {
		if err != nil {
			return err
		}
		if e.Kind == disk.Absent {
			continue
		}
		got := make([]byte, e.Length)
		if _, err := i.ReadAt(got, e.Offset); err != nil {
			return err
		}
		for at := int64(0); at < e.Length; {
			g := (e.Offset + at) / grain
			n := min(grain-(e.Offset+at)%grain, e.Length-at)
			held[g] = true
			if err := p.checkContent(g, got[at:at+n]); err != nil {
				return err
			}
			at += n
		}
	}
	for g := range p.flushed {
		if !held[g] {
			return fmt.Errorf("grain %d was flushed and is absent", g)
		}
	}
	return nil
}

// checkContent asks each sector to be of the flushed stamp or of a later one.
func (p *promises) checkContent(g int64, got []byte) error {
	allowed := slices.Clone(p.may[g])
	if stamp, ok := p.flushed[g]; ok || !p.differencing {
		allowed = append(allowed, stamp)
	}
	for at := 0; at < len(got); at += 512 {
		stamp := binary.BigEndian.Uint64(got[at:])
		if !slices.Contains(allowed, stamp) {
			return fmt.Errorf("grain %d holds %#x, of %#x", g, stamp, allowed)
		}
	}
	return nil
}
