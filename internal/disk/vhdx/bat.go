package vhdx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// batEntry is an entry of the BAT (MS-VHDX 2.5): a state, and a place in the file in whole MiB.
type batEntry uint64

// blockState is the state of a payload block; sector bitmap blocks have the first and the last but one alone.
type blockState uint8

const (
	stateNotPresent       blockState = 0
	stateUndefined        blockState = 1
	stateZero             blockState = 2
	stateUnmapped         blockState = 3
	stateFullyPresent     blockState = 6
	statePartiallyPresent blockState = 7

	entryReserved = 1<<20 - 1<<3
)

func entryOf(state blockState, offset int64) batEntry { return batEntry(offset) | batEntry(state) }

func (e batEntry) state() blockState { return blockState(e & 7) }

// offset is the block's place in bytes; larger than any file's when the entry holds one that no file has.
func (e batEntry) offset() int64 { return int64(min(uint64(e)&^(mib-1), math.MaxInt64&^(mib-1))) }

func (e batEntry) present() bool {
	return e.state() == stateFullyPresent || e.state() == statePartiallyPresent
}

// blockSpan is where a block of length bytes lies; an error when none can lie there.
func (c *container) blockSpan(e batEntry, length, fileSize int64) (span, error) {
	at := span{e.offset(), length}
	if !at.inside(fileSize) {
		return span{}, fmt.Errorf("%d bytes at %d of a file of %d", length, at.offset, fileSize)
	}
	if c.regions.taken(c.ring, at) {
		return span{}, fmt.Errorf("%d bytes at %d, where the file's own structures are", length, at.offset)
	}
	return at, nil
}

// payload is the entry of a payload block, checked; mu is held.
func (v *virtualDisk) payload(block int64) (batEntry, error) {
	e, err := v.entry(v.payloadIndex(block))
	if err != nil {
		return 0, err
	}
	switch e.state() {
	case stateNotPresent, stateUndefined, stateZero, stateUnmapped:
		return e, nil
	case statePartiallyPresent, stateFullyPresent:
	default:
		return 0, corrupt("block %d has the state %d", block, e.state())
	}
	if e.state() == statePartiallyPresent && !v.layer {
		return 0, corrupt("block %d is partially present, and there is no parent", block)
	}
	if _, err := v.blockSpan(e, v.block, v.end); err != nil {
		return 0, corrupt("block %d has %w", block, err)
	}
	return e, nil
}

// bitmapBlock is the place of a chunk's sector bitmap block, 0 when it has none; mu is held.
func (v *virtualDisk) bitmapBlock(chunk int64) (int64, error) {
	e, err := v.entry(v.bitmapIndex(chunk))
	if err != nil {
		return 0, err
	}
	switch e.state() {
	case stateNotPresent:
		return 0, nil
	case stateFullyPresent:
	default:
		return 0, corrupt("the sector bitmap block of chunk %d has the state %d", chunk, e.state())
	}
	if _, err := v.blockSpan(e, bitmapBlockSize, v.end); err != nil {
		return 0, corrupt("the sector bitmap block of chunk %d has %w", chunk, err)
	}
	return e.offset(), nil
}

// entry is one of the BAT; mu is held.
func (v *virtualDisk) entry(index int64) (batEntry, error) {
	off := v.regions.bat.offset + index*entrySize
	p, err := v.pages.get(off / pageSize * pageSize)
	if err != nil {
		return 0, err
	}
	return batEntry(binary.LittleEndian.Uint64(p.bytes[off%pageSize:])), nil
}

// setEntry changes one; mu is held.
func (v *virtualDisk) setEntry(index int64, e batEntry) error {
	off := v.regions.bat.offset + index*entrySize
	p, err := v.pages.get(off / pageSize * pageSize)
	if err != nil {
		return err
	}
	v.pages.change(p)
	binary.LittleEndian.PutUint64(p.bytes[off%pageSize:], uint64(e))
	return nil
}

// bitRun says whether the bit at from is set, and how many bits up to to, from there on, are like it. The first bit
// of a byte is its lowest.
func bitRun(p []byte, from, to int64) (set bool, n int64) {
	set = p[from/8]>>(from%8)&1 != 0
	var like byte
	if set {
		like = 0xff
	}
	at := from
	for at < to {
		if at%64 == 0 && to-at >= 64 && binary.LittleEndian.Uint64(p[at/8:]) == uint64(like)*0x0101010101010101 {
			at += 64
			continue
		}
		differing := (p[at/8] ^ like) >> (at % 8)
		if differing != 0 {
			at += int64(bits.TrailingZeros8(differing))
			break
		}
		at += 8 - at%8
	}
	return set, min(at, to) - from
}

// setBits sets the bits [from, to); false when they were all set.
func setBits(p []byte, from, to int64) (changed bool) {
	for at := from; at < to; {
		end := min(at-at%8+8, to)
		mask := byte(0xff) << (at % 8)
		if end%8 != 0 {
			mask &= 1<<(end%8) - 1
		}
		changed = changed || p[at/8]&mask != mask
		p[at/8] |= mask
		at = end
	}
	return changed
}
