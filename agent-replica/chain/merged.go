package chain

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// NextMerge is the disk, in the record's order, and the layer that are merged next; an empty disk when none are. held is
// set when nothing is merged because somebody reads what lies below.
func (v *VM) NextMerge(record Record) (diskID, file string, held bool) {
	for i := range record.Disks {
		d := &record.Disks[i]
		if at := d.NextMerge(func(layer int) bool { return v.pins.crossed(d, layer) }); at >= 0 {
			return d.ID, d.Layers[at].File, false
		}
		held = held || d.Waiting() > 0
	}
	return "", "", held
}

// StartMerge marks a layer; see Record.StartMerge. WRONG_STATE while somebody reads what it would be merged into. A base
// that another program has changed while it was open is merged into all the same, and the doubt is in the record then:
// from here on its stamp tells less.
func (v *VM) StartMerge(diskID, file string, bytes int64) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return Record{}, err
	}
	d, i, err := record.mergeable(diskID, func(l Layer) bool { return l.File == file })
	if err != nil {
		return Record{}, err
	}
	if v.pins.crossed(d, i) {
		return Record{}, failure.New(failure.Conflict, failure.ReasonWrongState, "what lies below the layer is being read").
			On(v.name, diskID)
	}
	if i == 0 {
		if _, err := v.changedBase(d); err != nil {
			return Record{}, failure.Locate(err, v.name, diskID)
		}
	}
	return v.Update(func(r *Record) error { return r.StartMerge(diskID, file, bytes) })
}

// FinishMerge says that what lies below the merging layer durably holds all of it. A committed layer above gets that as
// its parent first.
func (v *VM) FinishMerge(diskID string, m Merged) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return Record{}, err
	}
	d, i, err := record.mergeable(diskID, func(l Layer) bool { return l.State == Merging })
	if err != nil {
		return Record{}, err
	}
	stamp, err := v.finishTarget(d, i)
	if err != nil {
		return Record{}, failure.Locate(err, v.name, diskID)
	}
	merged := d.Layers[i].File
	record, err = v.Update(func(r *Record) error { return r.FinishMerge(diskID, stamp, m) })
	if err != nil {
		return Record{}, err
	}
	v.pins.forget(diskID, merged)
	v.dropLayers(record)
	return record, nil
}

// finishTarget makes what the layer at index i was merged into, and the layer above, what they are without it. Of a base
// it answers the stamp.
func (v *VM) finishTarget(d *Disk, i int) (disk.Stamp, error) {
	opened := v.disks[d.ID]
	if i > 0 {
		below := opened.layer(d.Layers[i-1].File)
		if err := below.Seal(v.parent(d, i-1)); err != nil {
			return disk.Stamp{}, err
		}
		return disk.Stamp{}, v.reparent(d, i)
	}
	if err := v.reparent(d, i); err != nil {
		return disk.Stamp{}, err
	}
	if err := opened.base.settle(); err != nil {
		return disk.Stamp{}, err
	}
	return v.storage.Settle(d.Base)
}

// reparent makes the layer above the one at index i stand on what lies below that; a receiving one has no parent yet.
func (v *VM) reparent(d *Disk, i int) error {
	above := i + 1
	if len(d.Layers) <= above || d.Layers[above].State == Receiving {
		return nil
	}
	return v.disks[d.ID].layer(d.Layers[above].File).Seal(v.parent(d, i))
}
