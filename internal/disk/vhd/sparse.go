package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

var errReadOnly = errors.New("the VHD is open for reading only")

// sparse is a disk made of blocks: dynamic, or differencing.
type sparse struct {
	file         durable.File
	mode         durable.Mode
	differencing bool
	size         int64
	block        int64 // bytes of a block's data
	bitmap       int64 // bytes of its bitmap, in whole sectors
	bat          int64 // where the BAT begins
	batLength    int64 // of the entries that the disk needs, in whole sectors
	headerAt     int64
	unsynced     durable.Unsynced

	// flushing is held by what orders writes of metadata, over its I/O; it guards footer and header.
	flushing sync.Mutex
	footer   *footer
	header   *header
	// growing is held while the file is made longer.
	growing sync.Mutex

	// mu guards what follows. Only reading a page of metadata, and completing a block of another make, is done
	// under it.
	mu     sync.Mutex
	failed error // the first error of a Flush: final
	cache  cache
	tail   int64 // where the footer at the end lies: blocks lie before it
	next   int64 // the first byte that no block takes
}

// newSparse makes a disk of what was read; opened for writing it mends what does not count.
func newSparse(file durable.File, mode durable.Mode, f *footers, h *headerFound) (*sparse, error) {
	entries := (f.chosen.size() + h.block() - 1) / h.block()
	s := &sparse{
		file: file, mode: mode, differencing: f.chosen.kind() == differencingDisk, size: f.chosen.size(),
		block: h.block(), bitmap: bitmapBytes(h.block()), bat: int64(h.bat()), batLength: batBytes(entries),
		headerAt: h.offset, footer: f.chosen, header: h.header, tail: f.fileSize - footerSize,
	}
	s.cache.pages = make(map[int64]*page)
	if f.end == nil || s.tail%sectorSize != 0 {
		s.tail = roundUp(f.fileSize, sectorSize)
	}
	s.next = s.tail
	s.unsynced.Add(0, s.size)
	if mode != durable.ReadWrite {
		return s, nil
	}
	return s, s.mend(f, h)
}

// bitmapBytes is a bit for each sector of a block, in whole sectors.
func bitmapBytes(block int64) int64 { return roundUp(block/sectorSize/8, sectorSize) }

// mend writes the header and the footers that are damaged or lag behind, each from the one that counts.
func (s *sparse) mend(f *footers, h *headerFound) error {
	changed := false
	write := func(p []byte, off int64) error {
		changed = true
		_, err := s.file.WriteAt(p, off)
		return err
	}
	var errs [3]error
	if h.recovered {
		errs[0] = write(h.header[:], h.offset)
	}
	if f.copy == nil || *f.copy != *f.chosen {
		errs[1] = write(f.chosen[:], 0)
	}
	if f.end == nil || *f.end != *f.chosen || s.tail != f.fileSize-footerSize {
		errs[2] = write(f.chosen[:], s.tail)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("mend the footer or header: %w", err)
	}
	if !changed {
		return nil
	}
	return s.file.Sync()
}

// Size is the disk's size in bytes.
func (s *sparse) Size() int64 { return s.size }

// LogicalSectorSize is 512.
func (s *sparse) LogicalSectorSize() int { return sectorSize }

// AllocatedBytes is the space that the file takes on its filesystem.
func (s *sparse) AllocatedBytes() (int64, bool) { return durable.Allocated(s.file) }

// window reads or finds the page of the BAT that has the entry of a block, and the entry's place in it. mu is held.
func (s *sparse) window(block int64) (*page, int64, error) {
	at := block * 4 / windowBytes * windowBytes
	p, err := s.page(s.bat+at, min(windowBytes, s.batLength-at))
	return p, block*4 - at, err
}

// page reads or finds n bytes of metadata. mu is held.
func (s *sparse) page(off, n int64) (*page, error) {
	if p := s.cache.find(off); p != nil {
		return p, nil
	}
	p := &page{offset: off, data: make([]byte, n)}
	if err := readFull(s.file, p.data, off); err != nil {
		return nil, err
	}
	s.cache.insert(p)
	return p, nil
}

// entry is where a block begins in the file; 0 when it has no place. mu is held.
func (s *sparse) entry(block int64) (int64, error) {
	p, at, err := s.window(block)
	if err != nil {
		return 0, err
	}
	sector := binary.BigEndian.Uint32(p.data[at:])
	if sector == absentEntry {
		return 0, nil
	}
	off := int64(sector) * sectorSize
	if bad := s.misplaced(off); bad != "" {
		return 0, corrupt("block %d at %d of the file %s", block, off, bad)
	}
	return off, nil
}

// misplaced says what is wrong with a block's place; nothing when no other structure lies there.
func (s *sparse) misplaced(off int64) string {
	switch end := off + s.bitmap + s.block; {
	case off < s.headerAt+headerSize:
		return "lies in the header"
	case off < s.bat+s.batLength && end > s.bat:
		return "lies in the BAT"
	case end > s.tail:
		return "reaches beyond the file's end"
	}
	return ""
}

// bits is the bitmap of the block at off. mu is held.
func (s *sparse) bits(off int64) (*page, error) {
	p := s.cache.find(off)
	if p != nil && int64(len(p.data)) == s.bitmap {
		return p, nil
	}
	if p != nil {
		return nil, corrupt("a bitmap at %d of the file lies over another structure", off)
	}
	p, err := s.page(off, s.bitmap)
	if err != nil {
		return nil, err
	}
	p.full = isFull(p.data, s.block/sectorSize/8)
	return p, nil
}

// admit checks a change before it is made.
func (s *sparse) admit(off, n int64) error {
	if err := disk.CheckRange(s.size, off, n); err != nil {
		return err
	}
	if s.mode != durable.ReadWrite {
		return errReadOnly
	}
	if s.differencing && (off%grainSize != 0 || n%grainSize != 0 && off+n != s.size) {
		return fmt.Errorf("%w: [%d, +%d)", ErrUnaligned, off, n)
	}
	return nil
}

// ErrUnaligned is answered for changing a range of a differencing disk that does not begin and end at a multiple of
// 4 KiB or at the disk's end.
var ErrUnaligned = errors.New("range not in multiples of 4 KiB")

// Close flushes, cuts what the file was grown by and not used, and closes it.
func (s *sparse) Close() error {
	var err error
	if s.mode == durable.ReadWrite {
		if err = s.Flush(); err == nil {
			err = s.trim()
		}
	}
	return errors.Join(err, s.file.Close())
}

// trim moves the footer to the end of what is used. The one at the end counts until the file is cut. From its first
// step no block gets a place but by making the file longer, which waits.
func (s *sparse) trim() error {
	s.growing.Lock()
	defer s.growing.Unlock()
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	from, to := s.tail, s.next
	s.tail = to
	s.mu.Unlock()
	if to == from {
		return nil
	}
	if err := s.cut(to); err != nil {
		return s.fail(fmt.Errorf("cut the VHD file to what is used: %w", err))
	}
	return nil
}

func (s *sparse) cut(to int64) error {
	if err := s.writeSynced(s.footer[:], to); err != nil {
		return err
	}
	if err := s.file.Truncate(to + footerSize); err != nil {
		return err
	}
	return s.file.Sync()
}

// full is a place that the format's sector numbers cannot express.
func full() error {
	return failure.New(failure.Exhausted, failure.ReasonLimit,
		"the VHD file would exceed 2 TiB, the most that its sector numbers reach").Try("use vhdx or qcow2 for this disk")
}
