package chain

import (
	"slices"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
)

// StartMerge marks a layer of a disk, which holds bytes: from here what lies below it, the base or another layer, is
// being written. Repeating it changes nothing. WRONG_STATE for a layer that stands on a recovery point, and while another
// one is being merged.
func (r *Record) StartMerge(diskID, file string, bytes int64) error {
	d, i, err := r.mergeable(diskID, func(l Layer) bool { return l.File == file })
	if err != nil {
		return err
	}
	if d.Layers[i].State == Committed && d.Layers[i].told() {
		r.tell(event.MergeStarted(r.VM, diskID, bytes))
	}
	d.Layers[i].State = Merging
	if i == 0 {
		d.Base.Writing = true
	}
	return nil
}

// Merged is what a merge did.
type Merged struct {
	// Bytes of the layer, and how long the merge took since this agent took it up.
	Bytes    int64
	Duration time.Duration
}

// FinishMerge takes the merged layer out of the table; its file becomes garbage. What lies below it holds all of it,
// durably. The stamps are its own from now on, and that of the layer above, which is committed when it has one.
func (r *Record) FinishMerge(diskID string, below, above disk.Stamp, m Merged) error {
	d, i, err := r.mergeable(diskID, func(l Layer) bool { return l.State == Merging })
	if err != nil {
		return err
	}
	merged := d.Layers[i]
	r.discard(merged.File)
	d.Layers = slices.Delete(slices.Clone(d.Layers), i, i+1)
	if i == 0 {
		d.Base.settle(below)
	} else {
		d.Layers[i-1].Stamp = below
	}
	if i < len(d.Layers) {
		d.Layers[i].Stamp = above
	}
	if r.FailingOver() {
		r.Failover.MergedBytes += m.Bytes
	}
	if merged.told() {
		r.tell(event.MergeFinished(r.VM, diskID, m.Bytes, m.Duration))
	}
	return nil
}

// mergeable is the layer of a disk that is wanted, and its index, when it may be merged into what lies below it.
func (r *Record) mergeable(diskID string, wanted func(Layer) bool) (*Disk, int, error) {
	d := r.Disk(diskID)
	if r.Releasing {
		return nil, 0, releasing().On(r.VM, diskID)
	}
	if d != nil {
		merging := slices.IndexFunc(d.Layers, func(l Layer) bool { return l.State == Merging })
		i := slices.IndexFunc(d.Layers, wanted)
		if i >= 0 && d.Layers[i].State != Receiving && d.Layers[i].Point == nil && (merging < 0 || merging == i) {
			return d, i, nil
		}
	}
	return nil, 0, failure.New(failure.Precondition, failure.ReasonWrongState, "there is no layer to merge").
		On(r.VM, diskID)
}

// NextMerge is the index of the layer that is merged next: the one whose merge has begun, else the lowest that stands on
// no recovery point. held says which must wait; -1 is none.
func (d *Disk) NextMerge(held func(layer int) bool) int {
	next := -1
	for i, layer := range d.Layers {
		switch {
		case layer.State == Merging:
			return i
		case next < 0 && layer.State == Committed && layer.Point == nil && !held(i):
			next = i
		}
	}
	return next
}
