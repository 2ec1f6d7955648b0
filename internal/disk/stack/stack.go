// Package stack reads a disk through what lies in layers on a base.
//
// Vocabulary. A layer leaves Absent ranges to what is below it; the base, the lowest, has none. What a layer has of a
// range counts before anything below it.
//
// Invariants. The highest layer's size is the disk's. What lies beyond the end of a shorter one below reads as zeros,
// and what a longer one has beyond it is not seen. Memory is bounded: extents are joined one at a time. Nothing here
// writes.
package stack

import (
	"fmt"
	"iter"

	"vmreplica/internal/disk"
)

// Stack is a disk.Reader over a base and its layers. It owns none of them.
type Stack struct {
	base   disk.Reader
	layers []disk.Reader
}

var _ disk.Reader = (*Stack)(nil)

// New stacks layers, the lowest first, on a base.
func New(base disk.Reader, layers ...disk.Reader) *Stack { return &Stack{base: base, layers: layers} }

// top is the highest.
func (s *Stack) top() disk.Reader {
	if len(s.layers) == 0 {
		return s.base
	}
	return s.layers[len(s.layers)-1]
}

// Size is the highest layer's.
func (s *Stack) Size() int64 { return s.top().Size() }

// LogicalSectorSize is the highest layer's.
func (s *Stack) LogicalSectorSize() int { return s.top().LogicalSectorSize() }

// ReadAt reads each byte from the highest layer that holds it.
func (s *Stack) ReadAt(p []byte, off int64) (int, error) {
	if err := disk.CheckRange(s.Size(), off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := ReadThrough(s.base, s.layers, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Extents yields for each range the kind in the highest layer that holds it, neighbours of one kind joined.
func (s *Stack) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(s.Size(), off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		for extent, err := range ExtentsThrough(s.base, s.layers, off, n) {
			if !yield(extent, err) || err != nil {
				return
			}
		}
	}
}

// ReadThrough fills p from off through layers, the lowest first, on base. The range lies inside the highest.
func ReadThrough[L disk.Reader](base disk.Reader, layers []L, p []byte, off int64) error {
	if len(layers) == 0 {
		return readBase(base, p, off)
	}
	below, top := layers[:len(layers)-1], layers[len(layers)-1]
	inside := p[:len(p)-int(beyond(top, off, int64(len(p))))]
	clear(p[len(inside):])
	if len(inside) == 0 {
		return nil
	}
	for extent, err := range Joined(top.Extents(off, int64(len(inside)))) {
		if err != nil {
			return err
		}
		part := inside[extent.Offset-off : extent.End()-off]
		switch extent.Kind {
		case disk.Absent:
			err = ReadThrough(base, below, part, extent.Offset)
		case disk.Data:
			_, err = top.ReadAt(part, extent.Offset)
		default:
			clear(part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readBase(base disk.Reader, p []byte, off int64) error {
	inside := len(p) - int(beyond(base, off, int64(len(p))))
	clear(p[inside:])
	if inside == 0 {
		return nil
	}
	_, err := base.ReadAt(p[:inside], off)
	return err
}

// beyond is how much of the range lies behind the end of r.
func beyond(r disk.Reader, off, n int64) int64 { return min(max(off+n-r.Size(), 0), n) }

// ExtentsThrough yields [off, off+n) through layers, the lowest first, on base. The range lies inside the highest.
func ExtentsThrough[L disk.Reader](base disk.Reader, layers []L, off, n int64) iter.Seq2[disk.Extent, error] {
	return Joined(through(base, layers, off, n))
}

func through[L disk.Reader](base disk.Reader, layers []L, off, n int64) iter.Seq2[disk.Extent, error] {
	if len(layers) == 0 {
		return whole(extended(base, off, n))
	}
	below, top := layers[:len(layers)-1], layers[len(layers)-1]
	return func(yield func(disk.Extent, error) bool) {
		for extent, err := range Joined(extended(top, off, n)) {
			if err != nil || extent.Kind != disk.Absent {
				if !yield(extent, err) || err != nil {
					return
				}
				continue
			}
			for lower, err := range through(base, below, extent.Offset, extent.Length) {
				if !yield(lower, err) || err != nil {
					return
				}
			}
		}
	}
}

// extended are the extents of r, with Unmapped for what lies behind its end.
func extended(r disk.Reader, off, n int64) iter.Seq2[disk.Extent, error] {
	outside := beyond(r, off, n)
	if outside == 0 {
		return r.Extents(off, n)
	}
	return func(yield func(disk.Extent, error) bool) {
		if outside < n {
			for extent, err := range r.Extents(off, n-outside) {
				if !yield(extent, err) || err != nil {
					return
				}
			}
		}
		yield(disk.Extent{Offset: off + n - outside, Length: outside, Kind: disk.Unmapped}, nil)
	}
}

// whole refuses an Absent range of a base, below which there is nothing.
func whole(extents iter.Seq2[disk.Extent, error]) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for extent, err := range extents {
			if err == nil && extent.Kind == disk.Absent {
				err = fmt.Errorf("%d bytes at %d of the lowest image: %w", extent.Length, extent.Offset, disk.ErrAbsent)
			}
			if !yield(extent, err) || err != nil {
				return
			}
		}
	}
}

// Joined joins neighbours of one kind, so that what lies below is asked once for each range.
func Joined(extents iter.Seq2[disk.Extent, error]) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		var pending disk.Extent
		for extent, err := range extents {
			switch {
			case err != nil:
				if pending.Length == 0 || yield(pending, nil) {
					yield(disk.Extent{}, err)
				}
				return
			case pending.Length > 0 && pending.Kind == extent.Kind:
				pending.Length += extent.Length
				continue
			case pending.Length > 0 && !yield(pending, nil):
				return
			}
			pending = extent
		}
		if pending.Length > 0 {
			yield(pending, nil)
		}
	}
}
