package chain

import (
	"errors"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// SealPoint makes a recovery point of what the disks hold: an empty layer on each, in one change of the record. From here
// nothing is merged into what lies below these layers. The VM is acquired. Failures are planPoint's; what an interrupted
// attempt has left is deleted by Clean.
func (v *VM) SealPoint(now time.Time) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if v.users == 0 {
		return Record{}, failure.New(failure.Internal, failure.ReasonWrongState, "the disks are not open").On(v.name, "")
	}
	record, err := v.Record()
	if err != nil {
		return Record{}, err
	}
	layers := record.pointLayers(replication.NewID())
	if record, err = v.Update(func(r *Record) error { return r.planPoint(layers) }); err != nil {
		return Record{}, err
	}
	made, err := v.makePoint(record, layers)
	if err == nil {
		cut := record.Cut
		record, err = v.Update(func(r *Record) error { return r.attachPoint(cut, layers, now) })
	}
	if err != nil {
		for _, layer := range made {
			err = errors.Join(err, layer.Close())
		}
		return Record{}, failure.Locate(err, v.name, "")
	}
	for i, layer := range made {
		v.disks[record.Disks[i].ID].Push(layers[i].File, layer)
	}
	return record, nil
}

// pointLayers are those of a new point, a disk each. What is merged into them comes from cycles.
func (r *Record) pointLayers(id replication.ID) []Layer {
	layers := make([]Layer, len(r.Disks))
	for i := range r.Disks {
		d := &r.Disks[i]
		layers[i] = Layer{
			File: r.layerFile(d, id), Format: d.layerKind().Format, State: Committed, Transfer: id, Kind: replication.KindDelta,
		}
	}
	return layers
}

// makePoint makes the files, each on the top of its disk, and stamps the layers.
func (v *VM) makePoint(record Record, layers []Layer) (made []disk.Layer, err error) {
	for i := range record.Disks {
		d := &record.Disks[i]
		layer, err := v.storage.CreateLayer(layers[i], d.SizeBytes, d.LogicalSectorSize)
		if err != nil {
			return made, failure.Locate(err, v.name, d.ID)
		}
		made = append(made, layer)
		if err := sealed(layer, v.parent(d, len(d.Layers))); err != nil {
			return made, failure.Locate(err, v.name, d.ID)
		}
	}
	for i := range layers {
		if layers[i].Stamp, err = v.storage.Settle(layers[i].place()); err != nil {
			return made, failure.Locate(err, v.name, record.Disks[i].ID)
		}
	}
	return made, nil
}

// DropPoint gives up a point on all disks; its layers are merged by whoever merges. WRONG_STATE while it is read.
func (v *VM) DropPoint(id replication.ID) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if readers := v.pins.of(id); len(readers) > 0 {
		return Record{}, v.read(readers)
	}
	return v.Update(func(r *Record) error { return r.DropPoint(id) })
}
