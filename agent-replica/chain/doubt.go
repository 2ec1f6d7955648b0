package chain

import (
	"cmp"
	"errors"
	"fmt"
	"path"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// settleBases makes what was written to the bases since they were opened durable and remembers their stamps. The caller
// holds turn, and nobody writes any more.
func (v *VM) settleBases() error {
	record, err := v.Record()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range record.Disks {
		if opened := v.disks[d.ID]; d.Base.Writing && opened.base.written.Load() && !opened.base.lost() {
			errs = append(errs, failure.Locate(v.settleBase(d), v.name, d.ID))
		}
	}
	return errors.Join(errs...)
}

func (v *VM) settleBase(d Disk) error {
	err := v.disks[d.ID].base.settle()
	if err == nil {
		var stamp disk.Stamp
		if stamp, err = v.storage.Settle(d.Base); err == nil {
			_, err = v.Update(func(r *Record) error { return r.SettleBase(d.ID, stamp) })
			return err
		}
	}
	if !errors.Is(err, durable.ErrSync) {
		return err
	}
	_, recordErr := v.Update(func(r *Record) error { return r.LoseBase(d.ID, err.Error()) })
	return errors.Join(err, recordErr)
}

// openDisk opens a disk. The base's stamp is looked at once more under the lock that the opening took: what it then is
// becomes the record's, with what follows from that.
func (v *VM) openDisk(d Disk) (*Open, error) {
	if _, err := v.changedLayer(&d); err != nil {
		return nil, err
	}
	opened, err := OpenDisk(v.storage, d)
	if err == nil || failure.Find(err).Reason != failure.ReasonReplicaRecord {
		return opened, err
	}
	found := failure.Find(err).Message
	known := d.Base.Stamp
	d.Base.Stamp = disk.Stamp{}
	if opened, err = OpenDisk(v.storage, d); err != nil {
		return nil, err
	}
	if err := v.noteDoubt(d.ID, known, found); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// noteDoubt remembers that the base is not as its stamp tells, unless the record has moved on meanwhile or this agent
// may have written the difference. The pass over an incomplete base begins anew: what was proven of it was read before.
func (v *VM) noteDoubt(diskID string, known disk.Stamp, found string) error {
	record, err := v.Record()
	if err != nil {
		return err
	}
	held := record.Disk(diskID)
	if held == nil || held.Base.Stamp != known {
		return nil
	}
	stamp, err := v.storage.Stamp(held.Base)
	if err != nil {
		return err
	}
	note := func(r *Record) error { return r.Doubt(diskID, "", found, stamp) }
	switch {
	case held.Base.difference(stamp) == "":
		return nil
	case held.Base.Incomplete:
		note = func(r *Record) error { return r.RestartBase(diskID, found, stamp) }
	}
	_, err = v.Update(note)
	return err
}

// Doubts says, for each disk in the record's order, how its files are not as this agent left them; empty when
// they are. A changed base is remembered until a transfer has proven the disk.
func (v *VM) Doubts() ([]string, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return nil, err
	}
	doubts := make([]string, len(record.Disks))
	if record.Failover != nil {
		return doubts, nil // the machine writes to the disks
	}
	for i := range record.Disks {
		if doubts[i], err = v.doubt(&record.Disks[i]); err != nil {
			return nil, failure.Locate(err, v.name, record.Disks[i].ID)
		}
	}
	return doubts, nil
}

func (v *VM) doubt(d *Disk) (string, error) {
	for _, layer := range d.Layers {
		if err := v.storage.Exists(layer.File); err != nil {
			return failure.Find(err).Message, nil
		}
	}
	stamp, err := v.storage.Stamp(d.Base)
	if err != nil {
		return failure.Find(err).Message, nil
	}
	changed := d.Base.difference(stamp)
	if d.Base.Incomplete {
		return d.Doubt, nil // nothing is claimed of an incomplete base; its next opening looks at it
	}
	if changed == "" {
		found, err := v.changedLayer(d)
		return cmp.Or(d.Doubt, found), err
	}
	found := "the base was changed by another program: " + changed
	if d.Doubt != "" {
		found = d.Doubt
	}
	return found, v.noteDoubt(d.ID, d.Base.Stamp, found)
}

// changedLayer says how a layer is not as this agent left it, and remembers the doubt; empty when all are.
func (v *VM) changedLayer(d *Disk) (found string, err error) {
	for i, layer := range d.Layers {
		if layer.Stamp == (disk.Stamp{}) {
			continue
		}
		stamp, err := v.storage.Stamp(layer.place())
		if err != nil {
			return "", err
		}
		difference := d.layerDifference(i, stamp)
		if difference == "" {
			continue
		}
		changed := fmt.Sprintf("the differencing disk %s was changed by another program: %s", path.Base(layer.File), difference)
		_, err = v.Update(func(r *Record) error { return r.Doubt(d.ID, layer.File, changed, stamp) })
		if err != nil {
			return "", err
		}
		found = cmp.Or(found, changed)
	}
	return found, nil
}

// SaveCursor is Record.SaveCursor for what is durable already. With it goes the stamp of an incomplete base.
func (v *VM) SaveCursor(transfer replication.ID, diskID string, session uint64, segment int64, chain blockdiff.Hash,
) (Record, error) {
	return v.saved(diskID, func(r *Record) error { return r.SaveCursor(transfer, diskID, session, segment, chain) })
}
