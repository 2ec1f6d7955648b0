package vhd

import (
	"encoding/binary"
	"fmt"
)

// growBytes is by how much the file is made longer at least, all of it a hole.
const growBytes = 128 << 20

// maxSector bounds where a block may begin.
const maxSector = absentEntry - 1

// place is where a block's data lies.
type place struct {
	data int64
	// made says that the block is new, and its data therefore zeros.
	made bool
}

// WriteAt writes p at off; in a differencing disk multiples of 4 KiB.
func (s *sparse) WriteAt(p []byte, off int64) (int, error) {
	if err := s.admit(off, int64(len(p))); err != nil {
		return 0, err
	}
	defer s.unsynced.Add(off, int64(len(p)))
	done := 0
	for done < len(p) {
		at := off + int64(done)
		n := min(len(p)-done, int(s.block-at%s.block))
		if err := s.writeBlock(p[done:done+n], at); err != nil {
			return done, fmt.Errorf("write VHD: %w", err)
		}
		done += n
	}
	return done, nil
}

// writeBlock writes within one block: place, data, and only then the bits that make it visible.
func (s *sparse) writeBlock(p []byte, off int64) error {
	to, err := s.place(off / s.block)
	if err != nil {
		return err
	}
	if _, err := s.file.WriteAt(p, to.data+off%s.block); err != nil {
		return err
	}
	return s.mark(off, int64(len(p)))
}

// Zero makes the range read as zeros. In a dynamic disk blocks without a place stay without one.
func (s *sparse) Zero(off, n int64) error {
	return s.clear(off, n, func(host, n int64) error {
		if s.differencing {
			return s.file.Punch(host, n)
		}
		return s.file.ZeroRange(host, n)
	})
}

// Unmap is Zero that gives the data's space back to the host. Blocks keep their place.
func (s *sparse) Unmap(off, n int64) error { return s.clear(off, n, s.file.Punch) }

func (s *sparse) clear(off, n int64, erase func(host, n int64) error) error {
	if err := s.admit(off, n); err != nil || n == 0 {
		return err
	}
	defer s.unsynced.Add(off, n)
	for end := off + n; off < end; {
		part := min(end-off, s.block-off%s.block)
		if err := s.clearBlock(off, part, erase); err != nil {
			return fmt.Errorf("zero VHD: %w", err)
		}
		off += part
	}
	return nil
}

// clearBlock zeroes within one block.
func (s *sparse) clearBlock(off, n int64, erase func(host, n int64) error) error {
	if !s.differencing {
		r, err := s.locate(off, n)
		if err != nil || !r.present && r.n == n {
			return err
		}
	}
	to, err := s.place(off / s.block)
	if err != nil {
		return err
	}
	if !to.made {
		if err := erase(to.data+off%s.block, n); err != nil {
			return err
		}
	}
	return s.mark(off, n)
}

// place finds a block its place, a new one if it has none. When too much is dirty it flushes first.
func (s *sparse) place(block int64) (place, error) {
	for {
		if err := s.flushIfFull(); err != nil {
			return place{}, err
		}
		found, room, err := s.tryPlace(block)
		if err != nil || room {
			return found, err
		}
		if err := s.grow(); err != nil {
			return place{}, err
		}
	}
}

// tryPlace is place without I/O beyond a page's; room is false when the file must grow first.
func (s *sparse) tryPlace(block int64) (found place, room bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start, err := s.entry(block)
	if err != nil {
		return place{}, false, err
	}
	if start != 0 {
		return place{data: start + s.bitmap}, true, s.complete(start)
	}
	data := roundUp(s.next+s.bitmap, grainSize)
	if data+s.block > s.tail {
		return place{}, false, nil
	}
	return place{data: data, made: true}, true, s.allocate(block, data)
}

// allocate gives a block the place before data. mu is held.
func (s *sparse) allocate(block, data int64) error {
	start := data - s.bitmap
	if start/sectorSize > maxSector {
		return full()
	}
	window, at, err := s.window(block)
	if err != nil {
		return err
	}
	bits := &page{offset: start, data: make([]byte, s.bitmap), fresh: true}
	if !s.differencing {
		setBits(bits.data, 0, s.bitmap*8)
		bits.full = true
	}
	s.cache.insert(bits)
	s.cache.change(bits)
	binary.BigEndian.PutUint32(window.data[at:], uint32(start/sectorSize))
	s.cache.change(window)
	s.next = data + s.block
	return nil
}

// complete sets all bits of a dynamic disk's block, which another program may have left out, after zeroing what
// they hid. mu is held.
func (s *sparse) complete(start int64) error {
	if s.differencing {
		return nil
	}
	bits, err := s.bits(start)
	if err != nil || bits.full {
		return err
	}
	sectors := s.block / sectorSize
	for at := int64(0); at < sectors; {
		set, n := bitRun(bits.data, at, sectors-at)
		if !set {
			if err := s.file.Punch(start+s.bitmap+at*sectorSize, n*sectorSize); err != nil {
				return err
			}
		}
		at += n
	}
	setBits(bits.data, 0, sectors)
	bits.full = true
	s.cache.change(bits)
	return nil
}

// mark sets the bits of a range within one block of a differencing disk.
func (s *sparse) mark(off, n int64) error {
	if !s.differencing {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	start, err := s.entry(off / s.block)
	if err != nil {
		return err
	}
	bits, err := s.bits(start)
	if err != nil {
		return err
	}
	first := off % s.block / sectorSize
	if setBits(bits.data, first, n/sectorSize) {
		bits.full = isFull(bits.data, s.block/sectorSize/8)
		s.cache.change(bits)
	}
	return nil
}

// grow makes room for a block more at least. The new footer is durable before the old one's sector is handed out.
func (s *sparse) grow() error {
	s.growing.Lock()
	defer s.growing.Unlock()
	s.mu.Lock()
	from, data := s.tail, roundUp(s.next+s.bitmap, grainSize)
	s.mu.Unlock()
	if data+s.block <= from {
		return nil
	}
	span := roundUp(s.bitmap, grainSize) + s.block
	to := data + s.block + min(growBytes, s.batLength/4*span)
	if err := s.move(from, to); err != nil {
		return fmt.Errorf("grow the VHD file: %w", err)
	}
	return nil
}

// move puts the footer at to, durably, and zeros where it was.
func (s *sparse) move(from, to int64) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	if _, err := s.file.WriteAt(s.footer[:], to); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return s.fail(err)
	}
	if _, err := s.file.WriteAt(make([]byte, footerSize), from); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = to
	return nil
}
