package vhdx

import (
	"vmreplica/internal/disk"
)

// run is an extent and, when it is Data, its place in the file.
type run struct {
	disk.Extent
	host int64
}

// maxJoined bounds the steps that are joined into one run, and with them the time that mu is held.
const maxJoined = 1024

// ReadAt reads data and zeros. A Layer answers disk.ErrAbsent, and how much lies before it, for what it leaves to its
// parent.
func (v *virtualDisk) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(v.size, off, int64(len(p))); err != nil {
		return 0, err
	}
	for done := 0; done < len(p); {
		r, err := v.next(off+int64(done), off+int64(len(p)))
		if err != nil {
			return done, err
		}
		part := p[done:][:r.Length]
		switch r.Kind {
		case disk.Data:
			if err := v.readPart(part, r.host); err != nil {
				return done, err
			}
		case disk.Absent:
			return done, disk.ErrAbsent
		default:
			clear(part)
		}
		done += len(part)
	}
	return len(p), nil
}

// next is the run that begins at off and ends at end at the latest; data is joined where it is contiguous in the
// file.
func (v *virtualDisk) next(off, end int64) (run, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	joined, err := v.runAt(off, end)
	if err != nil {
		return run{}, err
	}
	for range maxJoined {
		if joined.End() == end {
			break
		}
		following, err := v.runAt(joined.End(), end)
		if err != nil || !joined.join(following) {
			break // an error is met again at its own place
		}
	}
	return joined, nil
}

// join makes r cover following too when they are one run.
func (r *run) join(following run) bool {
	if r.Kind != following.Kind || r.Kind == disk.Data && r.host+r.Length != following.host {
		return false
	}
	r.Length += following.Length
	return true
}

// runAt is the run at off within one payload block; mu is held.
func (v *virtualDisk) runAt(off, end int64) (run, error) {
	block, inside := off/v.block, off%v.block
	e, err := v.payload(block)
	if err != nil {
		return run{}, err
	}
	r := run{disk.Extent{Offset: off, Length: min(v.block-inside, end-off)}, 0}
	switch state := e.state(); {
	case state == stateFullyPresent:
		r.Kind, r.host = disk.Data, e.offset()+inside
	case state == statePartiallyPresent:
		return r, v.partial(&r, e.offset()+inside)
	case state == stateNotPresent && v.layer:
		r.Kind = disk.Absent
	case state == stateUnmapped || !v.layer:
		r.Kind = disk.Unmapped
	default:
		r.Kind = disk.Zero
	}
	return r, nil
}

// partial cuts r, in a partially present block, to the sectors that are like its first; mu is held.
func (v *virtualDisk) partial(r *run, host int64) error {
	bit, p, err := v.bitmapPage(r.Offset)
	if err != nil {
		return err
	}
	last := (r.Offset%v.sector + r.Length + v.sector - 1) / v.sector // sectors that r touches
	set, n := bitRun(p.bytes, bit, min(bit+last, 8*pageSize))
	r.Length = min(r.Length, n*v.sector-r.Offset%v.sector)
	r.Kind = disk.Absent
	if set {
		r.Kind, r.host = disk.Data, host
	}
	return nil
}

// bitmapPage is the page with the bit of off's sector, and the bit's number in it; mu is held.
func (v *virtualDisk) bitmapPage(off int64) (bit int64, p *page, err error) {
	chunkBytes := v.ratio * v.block
	at, err := v.bitmapBlock(off / chunkBytes)
	if err != nil {
		return 0, nil, err
	}
	if at == 0 {
		return 0, nil, corrupt("chunk %d has partially present blocks and no sector bitmap block", off/chunkBytes)
	}
	sector := off % chunkBytes / v.sector
	const perPage = 8 * pageSize
	p, err = v.pages.get(at + sector/perPage*pageSize)
	return sector % perPage, p, err
}
