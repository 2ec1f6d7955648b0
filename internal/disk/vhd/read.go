package vhd

import (
	"encoding/binary"
	"fmt"

	"vmreplica/internal/disk"
)

// run is a range of the disk that is present in one piece of the file, or absent.
type run struct {
	n       int64
	present bool
	host    int64 // where it lies in the file when it is present
}

// locate finds how the disk is held at off, for n bytes at most. The run ends with the block, but for blocks without
// a place, which are joined as far as a window of the BAT goes.
func (s *sparse) locate(off, n int64) (run, error) {
	block, in := off/s.block, off%s.block
	s.mu.Lock()
	defer s.mu.Unlock()
	start, err := s.entry(block)
	if err != nil {
		return run{}, err
	}
	if start == 0 {
		return run{n: min(n, s.absentFrom(block)-in)}, nil
	}
	n = min(n, s.block-in)
	bits, err := s.bits(start)
	if err != nil {
		return run{}, err
	}
	host := start + s.bitmap + in
	if bits.full {
		return run{n, true, host}, nil
	}
	first := in / sectorSize
	set, sectors := bitRun(bits.data, first, (in+n-1)/sectorSize-first+1)
	return run{min(n, (first+sectors)*sectorSize-in), set, host}, nil
}

// absentFrom is how many bytes of blocks without a place follow the start of a block that has none, within the
// window of the BAT. mu is held, and the window is in memory.
func (s *sparse) absentFrom(block int64) int64 {
	first := block
	p, at, err := s.window(block)
	for err == nil && at+4 <= int64(len(p.data)) && binary.BigEndian.Uint32(p.data[at:]) == absentEntry {
		block++
		at += 4
	}
	return max(block-first, 1) * s.block
}

// ReadAt fills p from off. In a differencing disk it answers disk.ErrAbsent, and how much lies before it, for a range
// that the disk leaves to its parent.
func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(s.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		r, err := s.locate(off+int64(done), int64(len(p)-done))
		if err != nil {
			return done, fmt.Errorf("read VHD: %w", err)
		}
		part := p[done : done+int(r.n)]
		switch {
		case r.present:
			if err := readFull(s.file, part, r.host); err != nil {
				return done, fmt.Errorf("read VHD: %w", err)
			}
		case s.differencing:
			return done, disk.ErrAbsent
		default:
			clear(part)
		}
		done += len(part)
	}
	return done, nil
}
