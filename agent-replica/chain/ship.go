package chain

import (
	"slices"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// marksOnly says whether no pass goes over a disk.
func (b Begin) marksOnly(diskID string) bool {
	return b.Kind == replication.KindDelta || slices.Contains(b.MarksOnly, diskID)
}

// checkMarks refuses a transfer that ships only marks of a disk unless they are marks over what the replica holds.
func (r *Record) checkMarks(b Begin) error {
	if len(b.MarksOnly) > 0 && b.Kind != replication.KindResync {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "only a resync ships the marks of single disks")
	}
	for _, diskID := range b.MarksOnly {
		if r.Disk(diskID) == nil {
			return failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(r.VM, diskID)
		}
	}
	for i := range r.Disks {
		d := &r.Disks[i]
		if !b.marksOnly(d.ID) {
			continue
		}
		if err := r.checkMarked(d); err != nil {
			return err
		}
		if b.Lineage != r.Lineage || b.Cut != r.Cut {
			return failure.New(failure.Precondition, failure.ReasonReplicaRecord,
				"the replica holds lineage %s and cut %s, the primary's marks follow lineage %.40s and cut %.40s", r.Lineage, r.Cut,
				string(b.Lineage), string(b.Cut)).On(r.VM, d.ID)
		}
	}
	return nil
}

// checkMarked says why nothing can be shipped onto what a disk holds without a pass.
func (r *Record) checkMarked(d *Disk) error {
	switch {
	case d.Base.Incomplete || r.Lineage == "":
		return failure.New(failure.Precondition, failure.ReasonWrongState,
			"marks cannot be shipped before the first copy has committed").On(r.VM, d.ID)
	case d.Doubt != "":
		return failure.New(failure.Precondition, failure.ReasonReplicaRecord, "%s", d.Doubt).On(r.VM, d.ID)
	}
	return nil
}

// BeginShipment makes session the disk's only one that may write, with a shipment that follows the pass. What was shipped
// before no longer counts by itself: from here the layer may hold a part of this one. Failures are TakeSession's;
// WRONG_STATE while a pass over the disk is not proven, and in a verify.
func (r *Record) BeginShipment(transfer replication.ID, diskID string, session uint64, shipment replication.ID) error {
	t, err := r.transferDisk(transfer, diskID)
	switch {
	case err != nil:
		return err
	case !shipment.Valid():
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "shipment id %.40q has not 32 hexadecimal digits",
			string(shipment)).On(r.VM, diskID)
	case r.Transfer.Kind == replication.KindVerify:
		return failure.New(failure.Precondition, failure.ReasonWrongState, "a verify writes nothing").On(r.VM, diskID)
	case !t.MarksOnly && !t.Proven:
		return failure.New(failure.Precondition, failure.ReasonWrongState,
			"nothing is shipped before the disk is proven to its end").On(r.VM, diskID)
	}
	if err := r.TakeSession(transfer, diskID, session); err != nil {
		return err
	}
	t.Shipment = Shipment{ID: shipment}
	return nil
}

// FinishShipment says that all of the shipment is durable, with everything that was shipped before.
func (r *Record) FinishShipment(transfer replication.ID, diskID string, session uint64, done Shipment) error {
	t, err := r.sessionDisk(transfer, diskID, session)
	if err != nil {
		return err
	}
	if t.Shipment.ID != done.ID || done.Root.IsZero() {
		return failure.New(failure.Internal, failure.ReasonInternal, "the session ships another shipment").On(r.VM, diskID)
	}
	t.Shipment = done
	return nil
}

// CatchingUp says whether the open transfer's passes are followed by shipments.
func (r *Record) CatchingUp() bool {
	return r.Transfer != nil && r.Transfer.Kind != replication.KindDelta &&
		slices.ContainsFunc(r.Transfer.Disks, func(t TransferDisk) bool { return t.Shipment.ID != "" })
}

// SetPolicy says how many recovery points the operator wants kept.
func (r *Record) SetPolicy(recoveryPoints int) error {
	if r.Releasing {
		return releasing().On(r.VM, "")
	}
	r.RecoveryPoints = recoveryPoints
	return nil
}

// BeginShipment is Record.BeginShipment for a caller of that term.
func (v *VM) BeginShipment(s Session) (Record, error) {
	return v.Update(func(r *Record) error {
		if err := r.CheckTerm(s.Term); err != nil {
			return err
		}
		if err := r.BeginShipment(s.Transfer, s.Disk, s.Number, s.Shipment); err != nil {
			return err
		}
		r.startWriting(s.Disk, s.Time)
		return nil
	})
}

// FinishShipment is Record.FinishShipment for what is durable already. With it goes the stamp of an incomplete base.
func (v *VM) FinishShipment(transfer replication.ID, diskID string, session uint64, done Shipment) (Record, error) {
	return v.saved(diskID, func(r *Record) error { return r.FinishShipment(transfer, diskID, session, done) })
}

// KeepSession says that what the session has written is durable. Only of an incomplete base, whose stamp it renews, is
// that kept.
func (v *VM) KeepSession(transfer replication.ID, diskID string, session uint64) (Record, error) {
	record, err := v.Record()
	if err != nil {
		return record, err
	}
	if d := record.Disk(diskID); d == nil || !d.Base.Incomplete {
		_, err := record.sessionDisk(transfer, diskID, session)
		return record, err
	}
	return v.saved(diskID, func(r *Record) error {
		_, err := r.sessionDisk(transfer, diskID, session)
		return err
	})
}

// saved changes the record by what is durable on a disk; with it goes the stamp of an incomplete base, from which a killed
// agent's own last writes are told.
func (v *VM) saved(diskID string, change func(*Record) error) (Record, error) {
	record, err := v.Record()
	if err != nil {
		return record, err
	}
	d := record.Disk(diskID)
	var stamp disk.Stamp
	if d != nil && d.Base.Incomplete {
		if stamp, err = v.storage.Settle(d.Base); err != nil {
			return record, err
		}
	}
	return v.Update(func(r *Record) error {
		if err := change(r); err != nil {
			return err
		}
		if d := r.Disk(diskID); stamp != (disk.Stamp{}) {
			d.Base.Stamp = stamp
		}
		return nil
	})
}

// startWriting remembers when a session began to write to an incomplete base.
func (r *Record) startWriting(diskID string, now time.Time) {
	if base := &r.Disk(diskID).Base; base.Incomplete {
		base.SessionTime = now
	}
}

// committed is the root that a commit gives a disk: that of the pass, or of the commit before, extended by what was
// shipped onto it.
func (root Root) committed(p *blockdiff.Prover) blockdiff.Hash {
	if root.Shipment == "" {
		return root.Root
	}
	return p.Extend(root.Root, root.ShipmentRoot)
}

// checkShipment refuses a root whose shipment is not the last one that was begun on the disk, or not there to its end.
func (r *Record) checkShipment(t TransferDisk, root Root, cut replication.ID) error {
	wrong := func(what string) error {
		return failure.New(failure.Precondition, failure.ReasonWrongState, "%s", what).On(r.VM, t.ID)
	}
	switch {
	case root.Shipment == "" && t.MarksOnly:
		return wrong("the commit names no shipment of the disk, which was not compared")
	case root.Shipment == "" && t.Shipment.ID != "":
		return wrong("the commit does not name what was shipped after the pass")
	case root.Shipment == "":
		return nil
	case root.Shipment != cut:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the last shipment is not the cut's").On(r.VM, t.ID)
	case t.Shipment.ID != root.Shipment || t.Shipment.Root.IsZero():
		return wrong("the cut was not shipped to its end")
	case t.Shipment.Root != root.ShipmentRoot:
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"the replica holds a shipment with root %s, the commit names %s", t.Shipment.Root, root.ShipmentRoot).On(r.VM, t.ID)
	}
	return nil
}
