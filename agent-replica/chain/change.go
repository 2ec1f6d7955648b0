package chain

import (
	"errors"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Begin opens a transfer or finds it again, makes the layers that it needs and puts them on top of the open
// disks. The VM is acquired and held for the transfer. When it fails half-way, repeating it goes on and Abort
// cleans up.
func (v *VM) Begin(b Begin) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if v.users == 0 {
		return Record{}, failure.New(failure.Internal, failure.ReasonWrongState, "the disks are not open").On(v.name, "")
	}
	record, err := v.Update(func(r *Record) error { return r.Begin(b) })
	if err != nil {
		return Record{}, err
	}
	v.dropLayers(record)
	if len(record.Creating) == 0 {
		return record, nil
	}
	return v.createLayers(record)
}

// createLayers makes what stands in Creating. Nothing refers to those names yet, so what an interrupted attempt
// left there is deleted first.
func (v *VM) createLayers(record Record) (Record, error) {
	if err := v.storage.Remove(record.Creating...); err != nil {
		return Record{}, failure.Locate(err, v.name, "")
	}
	type made struct {
		disk, file string
		layer      disk.Layer
	}
	var layers []made
	discard := func(err error) (Record, error) {
		for _, m := range layers {
			err = errors.Join(err, m.layer.Close())
		}
		return Record{}, err
	}
	for i := range record.Disks {
		d := &record.Disks[i]
		if d.Base.Incomplete {
			continue
		}
		planned := record.newLayer(d, record.Transfer.ID)
		layer, err := v.storage.CreateLayer(planned, d.SizeBytes, d.LogicalSectorSize)
		if err != nil {
			return discard(failure.Locate(err, v.name, d.ID))
		}
		layers = append(layers, made{d.ID, planned.File, layer})
	}
	attached, err := v.Update(func(r *Record) error { return r.AttachLayers(record.Transfer.ID) })
	if err != nil {
		return discard(err)
	}
	for _, m := range layers {
		v.disks[m.disk].Push(m.file, m.layer)
	}
	return attached, nil
}

// Commit commits the open transfer: its layers get their parents and count from here. All streams have ended.
// Repeating it answers the same.
func (v *VM) Commit(c Commit) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return Record{}, err
	}
	if done, err := record.committedBefore(c); done || err != nil {
		return record, err
	}
	if err := record.checkCommit(c); err != nil {
		return Record{}, err
	}
	if v.users == 0 {
		return Record{}, failure.New(failure.Internal, failure.ReasonWrongState, "the disks are not open").On(v.name, "")
	}
	if err := v.checkFiles(record); err != nil {
		return Record{}, err
	}
	s, err := v.settle(record)
	if err != nil {
		return Record{}, err
	}
	record, err = v.Update(func(r *Record) error { return r.commit(c, s) })
	if err != nil {
		return Record{}, err
	}
	v.dropLayers(record)
	return record, nil
}

// checkFiles refuses a commit whose layers stand on what another program has changed since it was opened: the proof is of
// what it held before.
func (v *VM) checkFiles(record Record) error {
	for i := range record.Disks {
		d := &record.Disks[i]
		changed, err := v.changedBase(d)
		if err == nil && changed == "" {
			changed, err = v.changedLayer(d)
		}
		if err != nil {
			return failure.Locate(err, v.name, d.ID)
		}
		if changed != "" {
			return failure.New(failure.Precondition, failure.ReasonReplicaRecord, "%s", changed).On(v.name, d.ID).
				Try("Keep other programs from the replica's files, then resynchronize the VM.")
		}
	}
	return nil
}

// changedBase says how a base is not as this agent left or writes it, and remembers the doubt; empty when it is.
func (v *VM) changedBase(d *Disk) (string, error) {
	stamp, err := v.storage.Stamp(d.Base)
	if err != nil {
		return "", err
	}
	difference := d.Base.difference(stamp)
	if difference == "" {
		return "", nil
	}
	found := "the base was changed by another program: " + difference
	return found, v.noteDoubt(d.ID, d.Base.Stamp, found)
}

// settle makes everything durable that the commit's record will say. The stamps come last, because a stamp waits for a
// moment where its file was just written.
func (v *VM) settle(record Record) (settled, error) {
	s := settled{written: map[string]bool{}, stamps: map[string]disk.Stamp{}}
	for i := range record.Disks {
		d := &record.Disks[i]
		if err := v.settleDisk(d, s); err != nil {
			return settled{}, failure.Locate(err, v.name, d.ID)
		}
	}
	for i := range record.Disks {
		d := &record.Disks[i]
		place := d.Base
		if s.written[d.ID] {
			place = d.Layers[len(d.Layers)-1].place()
		} else if !d.Base.Incomplete {
			continue
		}
		stamp, err := v.storage.Settle(place)
		if err != nil {
			return settled{}, failure.Locate(err, v.name, d.ID)
		}
		s.stamps[d.ID] = stamp
	}
	return s, nil
}

// settleDisk makes what the transfer wrote of a disk what it will be when it is closed, durably.
func (v *VM) settleDisk(d *Disk, s settled) error {
	opened := v.disks[d.ID]
	if d.Base.Incomplete {
		return opened.base.settle()
	}
	top := len(d.Layers) - 1
	if top < 0 || d.Layers[top].State != Receiving {
		return failure.New(failure.Internal, failure.ReasonInternal, "the transfer has no layer")
	}
	layer := opened.layer(d.Layers[top].File)
	written, err := holdsAnything(layer)
	if err != nil || !written {
		return err
	}
	s.written[d.ID] = true
	return sealed(layer, v.parent(d, top))
}

// sealed is a layer's Seal, after which closing the file does not change it.
func sealed(layer disk.Layer, parent disk.Parent) error {
	if err := layer.Seal(parent); err != nil {
		return err
	}
	if stamper, ok := layer.(disk.Stamper); ok {
		if _, err := stamper.Stamp(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}

func holdsAnything(layer disk.Layer) (bool, error) {
	for extent, err := range layer.Extents(0, layer.Size()) {
		if err != nil {
			return false, err
		}
		if extent.Kind != disk.Absent {
			return true, nil
		}
	}
	return false, nil
}

// Abort discards the open transfer for a caller of that term. All streams have ended.
func (v *VM) Abort(transfer replication.ID, term uint64) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Update(func(r *Record) error {
		if err := r.CheckTerm(term); err != nil {
			return err
		}
		return r.Abort(transfer)
	})
	if err != nil {
		return Record{}, err
	}
	v.dropLayers(record)
	return record, nil
}

// dropLayers closes every open layer that the record no longer has. An error of closing means nothing any more:
// the layer's content does not count.
func (v *VM) dropLayers(record Record) {
	for _, d := range record.Disks {
		if opened := v.disks[d.ID]; opened != nil {
			_ = opened.keep(d.Layers)
		}
	}
}
