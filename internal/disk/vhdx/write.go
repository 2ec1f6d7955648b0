package vhdx

import (
	"errors"
	"fmt"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// ErrUnaligned is answered for a change of a Layer that does not begin and end at a multiple of 4 KiB or at the
// disk's end.
var ErrUnaligned = errors.New("range not in multiples of 4 KiB")

// layerGrain is the unit of a Layer's changes, in bytes: the larger of the two sector sizes.
const layerGrain = 4096

// admit checks a change before it is made, and begins the session.
func (v *virtualDisk) admit(off, n int64) error {
	if err := disk.CheckRange(v.size, off, n); err != nil {
		return err
	}
	if v.mode != durable.ReadWrite {
		return errReadOnly
	}
	if v.layer && (off%layerGrain != 0 || n%layerGrain != 0 && off+n != v.size) {
		return fmt.Errorf("%w: [%d, +%d)", ErrUnaligned, off, n)
	}
	if n == 0 {
		return nil
	}
	return v.begin()
}

// WriteAt writes p at off; to a Layer, in multiples of 4 KiB but at the disk's end.
func (v *virtualDisk) WriteAt(p []byte, off int64) (int, error) {
	if err := v.admit(off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		part := p[done:][:min(int64(len(p)-done), v.block-at%v.block)]
		if err := v.writeBlock(part, at); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(p), nil
}

// writeBlock writes within one block: a place, the data, and only then the bits that make it visible in a Layer.
func (v *virtualDisk) writeBlock(p []byte, off int64) error {
	host, err := v.place(off / v.block)
	if err != nil {
		return err
	}
	n, err := v.file.WriteAt(p, host+off%v.block)
	v.unsynced.Add(host+off%v.block, int64(n))
	if err != nil {
		return fmt.Errorf("write %d bytes at %d of the VHDX file: %w", len(p), host+off%v.block, err)
	}
	return v.mark(off, int64(len(p)))
}

// place is where a payload block lies. One that has no place gets one that reads as zeros: so, until something is
// written there, the disk reads as before, flushed or not.
func (v *virtualDisk) place(block int64) (int64, error) {
	if err := v.flushIfFull(); err != nil {
		return 0, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.payload(block)
	if err != nil || e.present() {
		return e.offset(), err
	}
	state := stateFullyPresent
	if v.layer {
		if err := v.placeBitmap(block / v.ratio); err != nil {
			return 0, err
		}
		if e.state() == stateNotPresent {
			state = statePartiallyPresent
			if err := v.clearBits(block); err != nil {
				return 0, err
			}
		}
	}
	host, err := v.allocate()
	if err != nil {
		return 0, err
	}
	return host, v.setEntry(v.payloadIndex(block), entryOf(state, host))
}

// placeBitmap gives a chunk its sector bitmap block; mu is held.
func (v *virtualDisk) placeBitmap(chunk int64) error {
	at, err := v.bitmapBlock(chunk)
	if err != nil || at != 0 {
		return err
	}
	if at, err = v.grow(bitmapBlockSize); err != nil {
		return err
	}
	return v.setEntry(v.bitmapIndex(chunk), entryOf(stateFullyPresent, at))
}

// allocate is a place for a payload block that reads as zeros; mu is held.
func (v *virtualDisk) allocate() (int64, error) {
	if last := len(v.free) - 1; last >= 0 {
		host := v.free[last]
		v.free = v.free[:last]
		return host, nil
	}
	return v.grow(v.block)
}

// grow makes the file n bytes longer and is where they begin; mu is held.
func (v *virtualDisk) grow(n int64) (int64, error) {
	if v.end > maxFileSize-n {
		return 0, fmt.Errorf("the VHDX file would grow beyond %d bytes", int64(maxFileSize))
	}
	if err := v.file.Truncate(v.end + n); err != nil {
		return 0, fmt.Errorf("make the VHDX file longer: %w", err)
	}
	host := v.end
	v.end += n
	return host, nil
}

// sectors calls visit with each bitmap page of [off, off+n), which lies within one block, and the bits in it; mu is
// held.
func (v *virtualDisk) sectors(off, n int64, visit func(p *page, from, to int64)) error {
	for end := off + n; off < end; {
		from, p, err := v.bitmapPage(off)
		if err != nil {
			return err
		}
		to := min(from+(end-off+v.sector-1)/v.sector, 8*pageSize)
		visit(p, from, to)
		off += (to - from) * v.sector
	}
	return nil
}

// clearBits makes every sector of a block absent; mu is held.
func (v *virtualDisk) clearBits(block int64) error {
	return v.sectors(block*v.block, v.block, func(p *page, from, to int64) {
		if set, n := bitRun(p.bytes, from, to); set || n < to-from {
			v.pages.change(p)
			clear(p.bytes[from/8 : (to+7)/8])
		}
	})
}

// mark makes [off, off+n), which lies within one block, present in a Layer.
func (v *virtualDisk) mark(off, n int64) error {
	if !v.layer {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	block := off / v.block
	e, err := v.payload(block)
	if err != nil || e.state() != statePartiallyPresent {
		return err
	}
	if v.whole(off, n) {
		return v.setEntry(v.payloadIndex(block), entryOf(stateFullyPresent, e.offset()))
	}
	return v.sectors(off, n, func(p *page, from, to int64) {
		if setBits(p.bytes, from, to) {
			v.pages.change(p)
		}
	})
}

// whole says whether [off, off+n) is all that the disk has of a block.
func (v *virtualDisk) whole(off, n int64) bool {
	return off%v.block == 0 && (n == v.block || off+n == v.size)
}
