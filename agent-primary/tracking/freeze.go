package tracking

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"vmreplica/internal/disk"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
)

// ErrBroken is answered for the content of a cut that could not be kept: what it had not sent goes back to live.
var ErrBroken = errors.New("the cut is broken")

// breakable is whether a cut still holds, one over all its disks.
type breakable struct {
	reason atomic.Pointer[error]
	broken chan struct{}
}

// end breaks the cut; the first reason stays.
func (b *breakable) end(reason error) {
	if b.reason.CompareAndSwap(nil, &reason) {
		close(b.broken)
	}
}

// err is why the cut is broken, ErrBroken in its chain; nil while it holds.
func (b *breakable) err() error {
	if reason := b.reason.Load(); reason != nil {
		return errors.Join(ErrBroken, *reason)
	}
	return nil
}

// keepBytes is how much is read at a time to be kept; the marks of such a piece are looked at under one lock.
const (
	keepBytes = 256 << 10
	stripes   = 64
)

// freeze is the content of one disk at a cut: of every block that is still in the epoch, what the image holds or, once
// a later write reached it, what was kept before. A block that is sent is no longer frozen.
type freeze struct {
	image  disk.Image
	log    *hrl.Log
	admit  *admission
	budget *Budget
	cut    *breakable
	// epoch is the first whose writes do not belong to the cut.
	epoch uint64

	// keeping serialises the keeping of one piece, and is held while the image is read.
	keeping [stripes]sync.Mutex

	mu sync.Mutex
	// kept is the old content by block; nil when the freeze is over. Guarded by mu.
	kept map[int64]*block
}

type block [hrl.BlockSize]byte

var (
	blocks = sync.Pool{New: func() any { return new(block) }}
	pieces = sync.Pool{New: func() any { return new([keepBytes]byte) }}
)

// keep sees to it that the frozen blocks which a later write of the range will change are kept. It never fails the
// write: what cannot be kept breaks the cut.
func (f *freeze) keep(off, n int64) {
	if fault.Enabled("no-copy-before-write") {
		return
	}
	first := off / hrl.BlockSize * hrl.BlockSize
	for at := first; at < off+n && f.cut.err() == nil; {
		found, length, err := f.log.Next(at, off+n, keepBytes)
		if err != nil {
			f.cut.end(err)
			return
		}
		if length <= 0 {
			return
		}
		length = min(length, keepBytes-found%keepBytes)
		f.keepPiece(found, length)
		at = found + length
	}
}

// keepPiece keeps a piece of whole blocks that does not cross a boundary of keepBytes. Writes admitted before the cut
// that meet it are waited for: they belong to it.
func (f *freeze) keepPiece(off, n int64) {
	lock := &f.keeping[off/keepBytes%stripes]
	lock.Lock()
	defer lock.Unlock()
	if f.holds(off, n) {
		return
	}
	_ = f.admit.awaitOlder(context.Background(), f.epoch, off, n) // which cannot be cancelled
	piece := pieces.Get().(*[keepBytes]byte)
	defer pieces.Put(piece)
	if _, err := f.image.ReadAt(piece[:n], off); err != nil {
		f.cut.end(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := off; at < off+n && f.kept != nil; at += hrl.BlockSize {
		if err := f.put(at/hrl.BlockSize, piece[at-off:min(at-off+hrl.BlockSize, n)]); err != nil {
			f.cut.end(err)
			f.drop()
		}
	}
}

// holds says whether there is nothing left to keep of a piece.
func (f *freeze) holds(off, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kept == nil {
		return true
	}
	for at := off; at < off+n; at += hrl.BlockSize {
		if f.kept[at/hrl.BlockSize] == nil {
			return false
		}
	}
	return true
}

// errBudget is why most cuts break.
var errBudget = errors.New("the memory for copy-before-write is used up")

// put keeps one block, unless it was sent meanwhile or is kept. The caller holds mu.
func (f *freeze) put(index int64, content []byte) error {
	if f.kept[index] != nil {
		return nil
	}
	frozen, err := f.log.Marked(index*hrl.BlockSize, 1)
	if err != nil || !frozen {
		return err
	}
	if !f.budget.take(hrl.BlockSize) {
		return errBudget
	}
	kept := blocks.Get().(*block)
	copy(kept[:], content)
	f.kept[index] = kept
	return nil
}

// readAt is the content at the cut.
func (f *freeze) readAt(p []byte, off int64) error {
	if err := f.cut.err(); err != nil {
		return err
	}
	if _, err := f.image.ReadAt(p, off); err != nil {
		return err
	}
	f.overlay(p, off)
	return f.cut.err()
}

// overlay puts what was kept over what was read. A later write keeps before it writes, so whatever of it was read is
// kept by now, or the cut is broken.
func (f *freeze) overlay(p []byte, off int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.kept) == 0 {
		return
	}
	end := off + int64(len(p))
	for index := off / hrl.BlockSize; index*hrl.BlockSize < end; index++ {
		kept := f.kept[index]
		if kept == nil {
			continue
		}
		from, to := max(index*hrl.BlockSize, off), min((index+1)*hrl.BlockSize, end)
		copy(p[from-off:to-off], kept[from-index*hrl.BlockSize:])
	}
}

// sent lets the blocks of the range go.
func (f *freeze) sent(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.log.Sent(off, n); err != nil {
		return err
	}
	if int64(len(f.kept)) < n/hrl.BlockSize {
		for index := range f.kept {
			if index*hrl.BlockSize >= off && index*hrl.BlockSize < off+n {
				f.release(index)
			}
		}
		return nil
	}
	for index := off / hrl.BlockSize; index*hrl.BlockSize < off+n; index++ {
		f.release(index)
	}
	return nil
}

// release lets a kept block go once it is no longer in the epoch. The caller holds mu.
func (f *freeze) release(index int64) {
	kept := f.kept[index]
	if kept == nil {
		return
	}
	if frozen, err := f.log.Marked(index*hrl.BlockSize, 1); err != nil || frozen {
		return
	}
	delete(f.kept, index)
	blocks.Put(kept)
	f.budget.give(hrl.BlockSize)
}

// keptRuns are the kept blocks, as ranges in order.
func (f *freeze) keptRuns(size int64) []Range {
	f.mu.Lock()
	order := slices.Sorted(maps.Keys(f.kept))
	f.mu.Unlock()
	var runs []Range
	for _, index := range order {
		at := index * hrl.BlockSize
		length := min(hrl.BlockSize, size-at)
		if last := len(runs) - 1; last >= 0 && runs[last].Offset+runs[last].Length == at {
			runs[last].Length += length
			continue
		}
		runs = append(runs, Range{at, length})
	}
	return runs
}

// over ends the freeze: later writes keep nothing.
func (f *freeze) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
}

// drop lets everything go. The caller holds mu.
func (f *freeze) drop() {
	for _, kept := range f.kept {
		blocks.Put(kept)
	}
	f.budget.give(int64(len(f.kept)) * hrl.BlockSize)
	f.kept = nil
}
