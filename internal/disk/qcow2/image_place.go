package qcow2

import (
	"fmt"

	"vmreplica/internal/disk"
)

// place writes the beginning of p where the disk has no place of its own for it. changing is held.
func (i *Image) place(p []byte, off int64) (int, error) {
	g := &i.header.geometry
	table, err := i.ownTable(off / g.span)
	if err != nil {
		return 0, err
	}
	inside := off & (g.cluster - 1)
	if inside == 0 {
		want, err := i.homeless(table, off, int64(len(p)))
		if err != nil {
			return 0, err
		}
		if want > 0 {
			return i.placeWhole(table, p, off, want)
		}
	}
	p = p[:min(int64(len(p)), g.cluster-inside)]
	return len(p), i.placePart(table, p, off)
}

// homeless is how many whole clusters of [off, off+n) one after the other have no place of their own, within a page
// of the table.
func (i *Image) homeless(table, off, n int64) (count int64, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	g := &i.header.geometry
	at := table + off%g.span>>g.bits*g.entry
	raw, err := i.metadata(at - at%g.page)
	if err != nil {
		return 0, err
	}
	for rest := raw[at%g.page:]; count < n>>g.bits && len(rest) > 0; rest = rest[g.entry:] {
		if g.home(g.entryAt(rest)) != 0 {
			break
		}
		count++
	}
	return count, nil
}

// home is the place in the file that belongs to e's cluster alone, 0 when there is none.
func (g *geometry) home(e entry) int64 {
	if e.descriptor&(flagCopied|flagCompressed) != flagCopied {
		return 0
	}
	return int64(e.descriptor & maskHost)
}

// placeWhole writes up to want whole clusters to new places.
func (i *Image) placeWhole(table int64, p []byte, off, want int64) (int, error) {
	g := &i.header.geometry
	run, err := i.allocate(want)
	if err != nil {
		return 0, err
	}
	p = p[:run.count<<g.bits]
	if _, err := i.file.WriteAt(p, run.first<<g.bits); err != nil {
		i.space.freed = append(i.space.freed, run)
		return 0, fmt.Errorf("write qcow2 image: %w", err)
	}
	for n := range run.count {
		if err := i.setEntry(table, off+n<<g.bits, g.whole((run.first+n)<<g.bits)); err != nil {
			i.space.freed = append(i.space.freed, clusterRun{first: run.first + n, count: run.count - n})
			return 0, err
		}
	}
	return len(p), nil
}

// whole is the entry of a cluster that is all data.
func (g *geometry) whole(host int64) entry {
	e := entry{descriptor: uint64(host) | flagCopied}
	if g.extended {
		e.subs = 1<<subclusters - 1
	}
	return e
}

// placePart writes p into one cluster and gives the rest of it the content it had.
func (i *Image) placePart(table int64, p []byte, off int64) error {
	g := &i.header.geometry
	start := off - off&(g.cluster-1)
	e, err := i.entry(table, off)
	if err != nil {
		return err
	}
	var room [subclusters + 1]piece
	before, err := i.lookup(room[:0], start, min(g.cluster, i.header.size-start))
	if err != nil {
		return err
	}
	if host := g.home(e); host != 0 {
		return i.complete(table, p, off, host, before)
	}
	run, err := i.allocate(1)
	if err != nil {
		return err
	}
	host := run.first << g.bits
	if err = i.fill(p, off-start, host, before, run.fresh); err == nil {
		err = i.setEntry(table, off, g.whole(host))
	}
	if err != nil {
		i.space.freed = append(i.space.freed, run)
	}
	return err
}

// fill writes a new cluster: what was there before, and p over it.
func (i *Image) fill(p []byte, inside, host int64, before []piece, fresh bool) error {
	if !holdsData(before) {
		if !fresh {
			if err := i.file.Punch(host, i.header.cluster); err != nil {
				return fmt.Errorf("write qcow2 image: %w", err)
			}
		}
		host += inside
	} else {
		whole := make([]byte, i.header.cluster)
		at := 0
		for _, part := range before {
			if err := i.readPiece(whole[at:at+int(part.Length)], part); err != nil {
				return err
			}
			at += int(part.Length)
		}
		copy(whole[inside:], p)
		p = whole
	}
	if _, err := i.file.WriteAt(p, host); err != nil {
		return fmt.Errorf("write qcow2 image: %w", err)
	}
	return nil
}

func holdsData(pieces []piece) bool {
	for _, p := range pieces {
		if p.Kind == disk.Data {
			return true
		}
	}
	return false
}

// complete writes p into a cluster that has a place of its own, and makes all of it data.
func (i *Image) complete(table int64, p []byte, off, host int64, before []piece) error {
	g := &i.header.geometry
	if i.ofTable(host, g.cluster) {
		return damaged("the content at %d of the disk is placed at %d of the file", off, host)
	}
	for n, part := range before {
		end := part.End()
		if n == len(before)-1 {
			end += -end & (g.cluster - 1)
		}
		if part.Kind == disk.Data {
			continue
		}
		if err := i.file.Punch(host+part.Offset&(g.cluster-1), end-part.Offset); err != nil {
			return fmt.Errorf("write qcow2 image: %w", err)
		}
	}
	if _, err := i.file.WriteAt(p, host+off&(g.cluster-1)); err != nil {
		return fmt.Errorf("write qcow2 image: %w", err)
	}
	return i.setEntry(table, off, g.whole(host))
}
