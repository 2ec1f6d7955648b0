package chain

import (
	"slices"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
)

// StartMerge marks the lowest layer of a disk, which holds bytes: from here the base is being written. Repeating it
// changes nothing.
func (r *Record) StartMerge(diskID string, bytes int64) error {
	d, err := r.mergeable(diskID, Committed, Merging)
	if err != nil {
		return err
	}
	if d.Layers[0].State == Committed {
		r.tell(event.MergeStarted(r.VM, diskID, bytes))
	}
	d.Layers[0].State = Merging
	d.Base.Writing = true
	return nil
}

// Merged is what a merge did.
type Merged struct {
	// Bytes of the layer, and how long the merge took since this agent took it up.
	Bytes    int64
	Duration time.Duration
}

// FinishMerge takes the merged layer out of the table; its file becomes garbage. The base holds all of it,
// durably, and stamp is the base's from now on.
func (r *Record) FinishMerge(diskID string, stamp disk.Stamp, m Merged) error {
	d, err := r.mergeable(diskID, Merging)
	if err != nil {
		return err
	}
	r.discard(d.Layers[0].File)
	d.Layers = slices.Clone(d.Layers[1:])
	d.Base.settle(stamp)
	r.tell(event.MergeFinished(r.VM, diskID, m.Bytes, m.Duration))
	return nil
}

func (r *Record) mergeable(diskID string, states ...LayerState) (*Disk, error) {
	d := r.Disk(diskID)
	switch {
	case r.Releasing:
		return nil, releasing().On(r.VM, diskID)
	case d == nil || len(d.Layers) == 0 || !slices.Contains(states, d.Layers[0].State):
		return nil, failure.New(failure.Precondition, failure.ReasonWrongState, "there is no layer to merge").
			On(r.VM, diskID)
	}
	return d, nil
}
