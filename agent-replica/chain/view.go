package chain

import (
	"errors"
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/stack"
)

// View reads a disk through its layers. Layers may be pushed, popped and written while it is read: a read of a
// range that is being written answers old or new bytes.
type View struct {
	base disk.Disk
	// layers are the open layers, lowest first; the slice is replaced, never changed.
	layers atomic.Pointer[[]*layer]
	// mu guards the uses of every layer, and the replacement of layers.
	mu sync.Mutex
}

// layer is an open layer. Its file is closed when it was taken out and no reader is inside it any more.
type layer struct {
	disk.Layer
	uses int
}

var _ disk.Reader = (*View)(nil)

func newView(base disk.Disk, layers []disk.Layer) *View {
	v := &View{base: base}
	opened := make([]*layer, 0, len(layers))
	for _, l := range layers {
		opened = append(opened, &layer{Layer: l, uses: 1})
	}
	v.layers.Store(&opened)
	return v
}

// Size is the disk's size.
func (v *View) Size() int64 { return v.base.Size() }

// LogicalSectorSize is the base's.
func (v *View) LogicalSectorSize() int { return v.base.LogicalSectorSize() }

// ReadAt reads each byte from the topmost layer that holds it.
func (v *View) ReadAt(p []byte, off int64) (int, error) {
	if len(*v.layers.Load()) == 0 {
		return v.base.ReadAt(p, off)
	}
	if err := disk.CheckRange(v.Size(), off, int64(len(p))); err != nil {
		return 0, err
	}
	layers := v.pin()
	if err := stack.ReadThrough(v.base, layers, p, off); err != nil {
		return 0, errors.Join(err, v.unpin(layers))
	}
	return len(p), v.unpin(layers)
}

// Extents yields for each range the kind in the topmost layer that holds it, neighbours of one kind joined as far
// as one layer tells them.
func (v *View) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(v.Size(), off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		layers := v.pin()
		more := true
		for extent, err := range stack.ExtentsThrough(v.base, layers, off, n) {
			if more = yield(extent, err); !more {
				break
			}
		}
		if err := v.unpin(layers); err != nil && more {
			yield(disk.Extent{}, err)
		}
	}
}

// pin keeps the present layers open until unpin.
func (v *View) pin() []*layer { return v.pinLowest(math.MaxInt) }

// pinLowest is pin of the lowest count layers.
func (v *View) pinLowest(count int) []*layer {
	v.mu.Lock()
	defer v.mu.Unlock()
	layers := *v.layers.Load()
	layers = layers[:min(count, len(layers))]
	for _, l := range layers {
		l.uses++
	}
	return layers
}

// unpin ends the use of layers; those that were taken out meanwhile and have no other reader are closed.
func (v *View) unpin(layers []*layer) error {
	var unused []*layer
	v.mu.Lock()
	for _, l := range layers {
		if l.uses--; l.uses == 0 {
			unused = append(unused, l)
		}
	}
	v.mu.Unlock()
	var errs []error
	for _, l := range unused {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// push puts a layer on top.
func (v *View) push(l disk.Layer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	layers := append([]*layer{}, *v.layers.Load()...)
	layers = append(layers, &layer{Layer: l, uses: 1})
	v.layers.Store(&layers)
}

// remove takes out the layer at index i; it is closed when its last reader is done.
func (v *View) remove(i int) error {
	v.mu.Lock()
	old := *v.layers.Load()
	layers := append([]*layer{}, old[:i]...)
	layers = append(layers, old[i+1:]...)
	v.layers.Store(&layers)
	v.mu.Unlock()
	return v.unpin(old[i : i+1])
}
