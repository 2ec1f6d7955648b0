package vhdx

import (
	"fmt"
)

// Zero makes the range read as zeros. A whole block gives up its space, but in a fixed file.
func (v *virtualDisk) Zero(off, n int64) error { return v.clear(off, n, stateZero) }

// Unmap makes the range read as zeros and releases its space: that of whole blocks in the file, after the next
// Flush, that of parts on the host alone.
func (v *virtualDisk) Unmap(off, n int64) error { return v.clear(off, n, stateUnmapped) }

func (v *virtualDisk) clear(off, n int64, state blockState) error {
	if err := v.admit(off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		part := min(v.block-off%v.block, end-off)
		if err := v.clearBlock(off, part, state); err != nil {
			return err
		}
		off += part
	}
	return nil
}

// clearBlock clears a range within one block.
func (v *virtualDisk) clearBlock(off, n int64, state blockState) error {
	switch {
	case v.whole(off, n) && (v.layer || !v.metadata.fixed):
		return v.clearWhole(off/v.block, state)
	case v.layer:
		return v.clearPartOfLayer(off, n)
	default:
		return v.clearPart(off, n, state)
	}
}

// clearWhole sets the block's state. Its place becomes free with the next Flush.
func (v *virtualDisk) clearWhole(block int64, state blockState) error {
	if err := v.flushIfFull(); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e, err := v.payload(block)
	if err != nil || v.zeros(e) {
		return err
	}
	if err := v.setEntry(v.payloadIndex(block), entryOf(state, 0)); err != nil {
		return err
	}
	if e.present() {
		v.freed = append(v.freed, e.offset())
	}
	return nil
}

// zeros says whether a block with this entry reads as zeros.
func (v *virtualDisk) zeros(e batEntry) bool {
	return !e.present() && (!v.layer || e.state() != stateNotPresent)
}

// clearPart clears a part of a block of a base, in its place.
func (v *virtualDisk) clearPart(off, n int64, state blockState) error {
	v.mu.Lock()
	e, err := v.payload(off / v.block)
	v.mu.Unlock()
	if err != nil || v.zeros(e) {
		return err
	}
	change := v.file.Punch
	if state == stateZero {
		change = v.file.ZeroRange
	}
	return v.clearPlace(e.offset()+off%v.block, n, change)
}

// clearPartOfLayer clears a part of a block and makes it present.
func (v *virtualDisk) clearPartOfLayer(off, n int64) error {
	v.mu.Lock()
	e, err := v.payload(off / v.block)
	v.mu.Unlock()
	if err != nil || v.zeros(e) {
		return err
	}
	host, err := v.place(off / v.block)
	if err != nil {
		return err
	}
	if err := v.clearPlace(host+off%v.block, n, v.file.Punch); err != nil {
		return err
	}
	return v.mark(off, n)
}

func (v *virtualDisk) clearPlace(host, n int64, change func(off, n int64) error) error {
	if err := change(host, n); err != nil {
		return fmt.Errorf("zero %d bytes at %d of the VHDX file: %w", n, host, err)
	}
	v.unsynced.Add(host, n)
	return nil
}
