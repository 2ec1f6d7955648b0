package chain

import (
	"path"
	"slices"
	"strings"

	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Disk is the disk of that id; nil when there is none.
func (r *Record) Disk(id string) *Disk {
	for i := range r.Disks {
		if r.Disks[i].ID == id {
			return &r.Disks[i]
		}
	}
	return nil
}

// Cursor is the disk's part of the open transfer; nil when there is none.
func (r *Record) Cursor(id string) *TransferDisk {
	if r.Transfer == nil {
		return nil
	}
	for i := range r.Transfer.Disks {
		if r.Transfer.Disks[i].ID == id {
			return &r.Transfer.Disks[i]
		}
	}
	return nil
}

// Incomplete says whether a base waits for its first copy.
func (r *Record) Incomplete() bool {
	return slices.ContainsFunc(r.Disks, func(d Disk) bool { return d.Base.Incomplete })
}

// LayersToMerge counts the committed layers of all disks that wait for their merge.
func (r *Record) LayersToMerge() int {
	count := 0
	for _, d := range r.Disks {
		count += d.Waiting()
	}
	return count
}

// Refers says whether a base or layer is that file.
func (r *Record) Refers(file string) bool {
	return slices.ContainsFunc(r.Disks, func(d Disk) bool {
		return d.Base.File == file || slices.ContainsFunc(d.Layers, func(l Layer) bool { return l.File == file })
	})
}

// Files are all files that the record refers to, without devices.
func (r *Record) Files() []string {
	var files []string
	for _, d := range r.Disks {
		if d.Base.Device == "" {
			files = append(files, d.Base.File)
		}
		for _, layer := range d.Layers {
			files = append(files, layer.File)
		}
	}
	return files
}

// tell adds an event to the transaction that changes the record.
func (r *Record) tell(e event.Event) { r.told = append(r.told, e) }

// Segments is the number of segments of the disk.
func (d *Disk) Segments() int64 {
	return (d.SizeBytes + blockdiff.SegmentSize - 1) / blockdiff.SegmentSize
}

// Waiting counts the disk's committed layers that stand on no recovery point, the merging one included.
func (d *Disk) Waiting() int {
	count := 0
	for _, layer := range d.Layers {
		if layer.State != Receiving && layer.Point == nil {
			count++
		}
	}
	return count
}

// beyond counts the disk's committed layers but those of the points that are to be kept: what a transfer must not be
// opened above for ever.
func (d *Disk) beyond(points int) int {
	committed := len(d.without(Receiving))
	return committed - min(committed-d.Waiting(), points)
}

// without are the layers that are not in a state.
func (d *Disk) without(state LayerState) []Layer {
	return slices.DeleteFunc(slices.Clone(d.Layers), func(l Layer) bool { return l.State == state })
}

// BalloonFile is the file that holds the space of a layer's merge.
func BalloonFile(layerFile string) string {
	return strings.TrimSuffix(layerFile, path.Ext(layerFile)) + ".balloon"
}

func (r *Record) checkOpen(transfer replication.ID) error {
	switch {
	case r.Releasing:
		return releasing().On(r.VM, "")
	case r.Failover != nil:
		return r.CheckFailover()
	case transfer != "" && transfer == r.CommittedTransfer:
		return committed(transfer).On(r.VM, "")
	case r.Transfer == nil || r.Transfer.ID != transfer:
		return failure.New(failure.Precondition, failure.ReasonWrongState, "transfer %.40s is not open", string(transfer)).
			On(r.VM, "")
	}
	return nil
}

func (r *Record) transferDisk(transfer replication.ID, diskID string) (*TransferDisk, error) {
	if err := r.checkOpen(transfer); err != nil {
		return nil, err
	}
	t := r.Cursor(diskID)
	switch {
	case t == nil:
		return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the transfer has no such disk").On(r.VM, diskID)
	case len(r.Creating) > 0:
		return nil, failure.New(failure.Precondition, failure.ReasonWrongState, "the transfer was not begun to its end").
			On(r.VM, diskID).Try("Begin it again.")
	}
	return t, failure.Locate(r.Transfer.usable(), r.VM, "")
}

func (r *Record) sessionDisk(transfer replication.ID, diskID string, session uint64) (*TransferDisk, error) {
	t, err := r.transferDisk(transfer, diskID)
	if err != nil {
		return nil, err
	}
	if session != t.Session {
		return nil, staleSession(session, t.Session).On(r.VM, diskID)
	}
	return t, nil
}

func staleSession(got, seen uint64) *failure.Error {
	return failure.New(failure.Conflict, failure.ReasonStaleSession, "session %d is not newer than session %d", got, seen)
}

func (r *Record) staleTerm(got uint64) *failure.Error {
	return failure.New(failure.Precondition, failure.ReasonStaleTerm,
		"the relationship's term is %d and the caller's %d", r.Term, got).On(r.VM, "").
		Try("Roles have changed since; this primary must not send any more.")
}

func committed(transfer replication.ID) *failure.Error {
	return failure.New(failure.Precondition, failure.ReasonCommitted, "transfer %s has committed", transfer)
}

func releasing() *failure.Error {
	return failure.New(failure.Precondition, failure.ReasonWrongState, "the replica of this VM is being removed")
}
