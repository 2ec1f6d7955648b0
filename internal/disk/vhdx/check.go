package vhdx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Check looks at the whole structure of a file of any kind, as it is after its log was replayed, and yields what is
// inconsistent; a file that cannot be opened is one finding. It writes nothing and takes at most 40 MiB. Errors are
// those of reading.
func Check(file durable.File) iter.Seq2[disk.Finding, error] {
	return func(yield func(disk.Finding, error) bool) {
		k := &checker{yield: yield}
		err := k.check(file)
		var refused *failure.Error
		switch {
		case err == nil, errors.Is(err, errEnough):
		case errors.As(err, &refused):
			yield(disk.Finding{Severity: disk.Damaged, Message: refused.Message}, nil)
		default:
			yield(disk.Finding{}, err)
		}
	}
}

// errEnough ends a check that its caller left.
var errEnough = errors.New("no more findings are wanted")

// checker walks a file. claimed has a bit for each MiB of it that belongs to something.
type checker struct {
	*container
	yield   func(disk.Finding, error) bool
	claimed []byte
	// partial says that the chunk being walked has partially present blocks.
	partial bool
}

// maxClaims bounds the MiB of a file that are looked after for blocks that share a place: 256 TiB of it.
const maxClaims = 1 << 28

// checkWindow is how much of the BAT is read at once.
const checkWindow = 1 << 20

func (k *checker) check(file durable.File) error {
	c, err := inspect(file)
	if err != nil {
		return err
	}
	k.container = c
	k.claimed = make([]byte, (min(c.fileSize/mib, maxClaims)+7)/8)
	if err := k.copies(); err != nil {
		return err
	}
	for _, region := range append([]span{c.ring, c.regions.bat, c.regions.metadata}, c.regions.others...) {
		k.claim(region)
	}
	if err := k.walkBAT(); err != nil {
		return err
	}
	return k.leaks()
}

// damaged reports a finding.
func (k *checker) damaged(format string, args ...any) error {
	return k.report(disk.Damaged, format, args...)
}

func (k *checker) report(severity disk.Severity, format string, args ...any) error {
	if !k.yield(disk.Finding{Severity: severity, Message: fmt.Sprintf(format, args...)}, nil) {
		return errEnough
	}
	return nil
}

// copies reports which of the two headers and of the two region tables cannot be used.
func (k *checker) copies() error {
	for i := range headerPlaces {
		if err := k.pair.errs[i]; err != nil {
			if err := k.damaged("header %d, at %d: %v", i+1, headerPlaces[i], err); err != nil {
				return err
			}
		}
		if err := k.regionErrs[i]; err != nil {
			if err := k.damaged("region table %d, at %d: %v", i+1, regionTablePlaces[i], err); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim takes a range of the file; false when any of it was taken.
func (k *checker) claim(at span) (free bool) {
	free = true
	for i := at.offset / mib; i < at.end()/mib && i/8 < int64(len(k.claimed)); i++ {
		free = setBits(k.claimed, i, i+1) && free
	}
	return free
}

func (k *checker) walkBAT() error {
	count := k.entries()
	for index := int64(0); index < count; {
		n := min(checkWindow/entrySize, count-index)
		p, err := k.readLogged(span{k.regions.bat.offset + index*entrySize, n * entrySize})
		if err != nil {
			return err
		}
		for ; len(p) > 0; p, index = p[entrySize:], index+1 {
			if err := k.entry(index, batEntry(binary.LittleEndian.Uint64(p))); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry checks one entry of the BAT.
func (k *checker) entry(index int64, e batEntry) error {
	chunk, inChunk := index/(k.ratio+1), index%(k.ratio+1)
	block := chunk*k.ratio + inChunk
	if e&entryReserved != 0 {
		if err := k.damaged("entry %d of the BAT is %#x, with reserved bits", index, uint64(e)); err != nil {
			return err
		}
	}
	switch {
	case inChunk == k.ratio:
		return k.bitmapEntry(chunk, e)
	case block >= k.blocks() && e != 0:
		return k.damaged("entry %d of the BAT is %#x, behind the disk's end", index, uint64(e))
	case e != 0:
		return k.payloadEntry(block, e)
	}
	return nil
}

func (k *checker) payloadEntry(block int64, e batEntry) error {
	switch e.state() {
	case statePartiallyPresent:
		if !k.layer {
			return k.damaged("block %d is partially present, and there is no parent", block)
		}
		k.partial = true
	case stateFullyPresent:
	case stateUndefined, stateUnmapped:
		if e.offset() != 0 {
			k.claim(span{e.offset(), k.block}) // where the block was may be kept for it
		}
		return nil
	case stateNotPresent, stateZero:
		if e.offset() != 0 {
			return k.damaged("block %d has the state %d and the place %d", block, e.state(), e.offset())
		}
		return nil
	default:
		return k.damaged("block %d has the state %d", block, e.state())
	}
	return k.place(fmt.Sprintf("block %d", block), e, k.block)
}

func (k *checker) bitmapEntry(chunk int64, e batEntry) error {
	partial := k.partial
	k.partial = false
	switch {
	case e.state() == stateNotPresent && partial:
		return k.damaged("chunk %d has partially present blocks and no sector bitmap block", chunk)
	case e == 0:
		return nil
	case e.state() != stateFullyPresent:
		return k.damaged("the sector bitmap block of chunk %d has the entry %#x", chunk, uint64(e))
	case !k.layer:
		return k.damaged("chunk %d has a sector bitmap block, and there is no parent", chunk)
	}
	return k.place(fmt.Sprintf("the sector bitmap block of chunk %d", chunk), e, bitmapBlockSize)
}

// place checks where a block lies.
func (k *checker) place(name string, e batEntry, length int64) error {
	at, err := k.blockSpan(e, length, k.fileSize)
	switch {
	case err != nil:
		return k.damaged("%s has %v", name, err)
	case !k.claim(at):
		return k.damaged("%s shares its %d bytes at %d with another", name, length, at.offset)
	}
	return nil
}

// leaks reports the space that belongs to nothing.
func (k *checker) leaks() error {
	var leaked, first int64
	end := min(k.fileSize/mib, int64(len(k.claimed))*8)
	for at := int64(headerAreaSize / mib); at < end; {
		taken, n := bitRun(k.claimed, at, end)
		if !taken && leaked == 0 {
			first = at
		}
		if !taken {
			leaked += n
		}
		at += n
	}
	if leaked == 0 {
		return nil
	}
	return k.report(disk.Leaked, "%d bytes belong to nothing, the first of them at %d", leaked*mib, first*mib)
}
