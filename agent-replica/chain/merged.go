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

// StartMerge marks a layer; see Record.StartMerge. WRONG_STATE while somebody reads what it would be merged into. What
// another program has changed while it was open is merged into all the same, and the doubt is in the record then: from here
// on its stamp tells less.
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
		_, err = v.changedBase(d)
	}
	if err == nil {
		_, err = v.changedLayer(d)
	}
	if err != nil {
		return Record{}, failure.Locate(err, v.name, diskID)
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
	below, above, err := v.finishTarget(d, i)
	if err != nil {
		return Record{}, failure.Locate(err, v.name, diskID)
	}
	merged := d.Layers[i].File
	record, err = v.Update(func(r *Record) error { return r.FinishMerge(diskID, below, above, m) })
	if err != nil {
		return Record{}, err
	}
	v.pins.forget(diskID, merged)
	v.dropLayers(record)
	return record, nil
}

// finishTarget makes what the layer at index i was merged into, and the layer above, what they are without it, and answers
// their stamps.
func (v *VM) finishTarget(d *Disk, i int) (below, above disk.Stamp, err error) {
	opened, target := v.disks[d.ID], d.Base
	if i > 0 {
		target = d.Layers[i-1].place()
		err = sealed(opened.layer(target.File), v.parent(d, i-1))
	}
	if err == nil {
		err = v.reparent(d, i)
	}
	if err == nil && i == 0 {
		err = opened.base.settle()
	}
	if err != nil {
		return below, above, err
	}
	if below, err = v.storage.Settle(target); err == nil && stands(d, i+1) {
		above, err = v.storage.Settle(d.Layers[i+1].place())
	}
	return below, above, err
}

// stands says whether there is a layer at that index that has a parent; a receiving one has none yet.
func stands(d *Disk, i int) bool { return i < len(d.Layers) && d.Layers[i].State != Receiving }

// reparent makes the layer above the one at index i stand on what lies below that.
func (v *VM) reparent(d *Disk, i int) error {
	if !stands(d, i+1) {
		return nil
	}
	return sealed(v.disks[d.ID].layer(d.Layers[i+1].File), v.parent(d, i))
}
