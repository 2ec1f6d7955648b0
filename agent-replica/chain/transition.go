package chain

import (
	"slices"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// MaxWaiting is how many committed layers of a disk may wait for their merge, beside those of the recovery points.
const MaxWaiting = 2

// Begin asks for a transfer of all disks.
type Begin struct {
	Transfer replication.ID
	Kind     replication.ResyncKind
	Proof    blockdiff.Algorithm
	// Disks are the primary's disks with their geometry; their set must be the record's.
	Disks []Geometry
	// Restart discards another open transfer.
	Restart bool
	// Lineage and Cut are what the primary knows that the replica holds; what is only marked is refused unless they are
	// the record's.
	Lineage, Cut replication.ID
	// MarksOnly are disks of a resync whose marks are exact: no pass goes over them.
	MarksOnly []string
	// RecoveryPoints is how many points the operator wants kept, 0 to replication.MaxRecoveryPoints.
	RecoveryPoints int
	// Term is the caller's; one that is lower than the record's is refused.
	Term uint64
	Time time.Time
}

// Geometry is what both sides of a disk must agree on.
type Geometry struct {
	ID                string
	SizeBytes         int64
	LogicalSectorSize int
}

// Begin opens a transfer, or finds it again with its cursors. The layers that it needs stand in Creating until
// AttachLayers. Failures: COMMITTED when the transfer has committed, RESYNC_RUNNING when another one is open and
// Restart is not set, SIZE_MISMATCH, SECTOR_SIZE_MISMATCH, WRONG_STATE, LIMIT_EXCEEDED when too many layers wait
// for their merge, REPLICA_RECORD_MISMATCH when marks are to be shipped onto what the replica does not hold.
func (r *Record) Begin(b Begin) error {
	if err := r.checkBegin(b); err != nil {
		return failure.Locate(err, r.VM, "")
	}
	if r.Transfer != nil && r.Transfer.ID == b.Transfer {
		return failure.Locate(r.sameTransfer(b), r.VM, "")
	}
	if r.Transfer != nil {
		if !b.Restart {
			return failure.New(failure.Exists, failure.ReasonResyncRunning, "transfer %s is open", r.Transfer.ID).
				On(r.VM, "").Try("Continue or cancel it, or begin with restart to discard it.")
		}
		r.discardTransfer()
	}
	r.discardCreating()
	r.RecoveryPoints = b.RecoveryPoints
	return failure.Locate(r.openTransfer(b), r.VM, "")
}

func (r *Record) checkBegin(b Begin) error {
	switch {
	case !b.Transfer.Valid():
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "transfer id %.40q has not 32 hexadecimal digits",
			string(b.Transfer))
	case r.Releasing:
		return releasing()
	case r.Failover != nil:
		return r.CheckFailover()
	case b.Term < r.Term:
		return r.staleTerm(b.Term)
	case !r.Prepared:
		return failure.New(failure.Precondition, failure.ReasonWrongState, "the replica's disks are not prepared").
			Try("Repeat the preparation of the replica.")
	case b.Transfer == r.CommittedTransfer:
		return committed(b.Transfer)
	}
	if err := r.CheckGeometry(b.Disks); err != nil {
		return err
	}
	return r.checkMarks(b)
}

// CheckGeometry refuses disks that are not the record's: SIZE_MISMATCH and SECTOR_SIZE_MISMATCH name both.
func (r *Record) CheckGeometry(disks []Geometry) error {
	for _, asked := range disks {
		held := r.Disk(asked.ID)
		switch {
		case held == nil:
			return failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(r.VM, asked.ID)
		case held.SizeBytes != asked.SizeBytes:
			return failure.New(failure.Precondition, failure.ReasonSizeMismatch,
				"the primary's disk has %d bytes, the replica's %d", asked.SizeBytes, held.SizeBytes).On(r.VM, asked.ID)
		case held.LogicalSectorSize != asked.LogicalSectorSize:
			return failure.New(failure.Precondition, failure.ReasonSectorMismatch,
				"the primary's disk has sectors of %d bytes, the replica's of %d", asked.LogicalSectorSize,
				held.LogicalSectorSize).On(r.VM, asked.ID)
		}
	}
	for _, held := range r.Disks {
		if !slices.ContainsFunc(disks, func(g Geometry) bool { return g.ID == held.ID }) {
			return failure.New(failure.Precondition, failure.ReasonWrongState,
				"the replica has this disk and the primary did not name it").On(r.VM, held.ID)
		}
	}
	if len(disks) != len(r.Disks) {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a disk is named twice")
	}
	return nil
}

func (r *Record) sameTransfer(b Begin) error {
	other := func(t TransferDisk) bool { return t.MarksOnly != b.marksOnly(t.ID) }
	if r.Transfer.Kind != b.Kind || r.Transfer.Proof != b.Proof || slices.ContainsFunc(r.Transfer.Disks, other) {
		return failure.New(failure.Precondition, failure.ReasonWrongState,
			"transfer %s is open with another kind or proof algorithm, or compares other disks", b.Transfer).
			Try("Abort it and begin another.")
	}
	return r.Transfer.usable()
}

// FailTransfer says that the open transfer must not go on: what its layers hold is unknown since a sync failed.
func (r *Record) FailTransfer(transfer replication.ID, why string) error {
	if err := r.checkOpen(transfer); err != nil {
		return err
	}
	r.Transfer.Failed = why
	return nil
}

func (t *Transfer) usable() error {
	if t.Failed == "" {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonStorageFailed,
		"what transfer %s had received is unknown since its storage failed: %s", t.ID, t.Failed).
		Try("Look into the replica's host for errors of its storage, then resynchronize with --restart.")
}

func (r *Record) openTransfer(b Begin) error {
	opened := &Transfer{ID: b.Transfer, Kind: b.Kind, Proof: b.Proof, StartTime: b.Time}
	for i := range r.Disks {
		d := &r.Disks[i]
		opened.Disks = append(opened.Disks, TransferDisk{ID: d.ID, MarksOnly: b.marksOnly(d.ID)})
		if b.Kind == replication.KindVerify && d.Base.Incomplete {
			return failure.New(failure.Precondition, failure.ReasonWrongState,
				"there is nothing to verify before the first copy has committed").On(r.VM, d.ID)
		}
		if d.Base.Lost != "" {
			return failure.New(failure.Precondition, failure.ReasonStorageFailed,
				"what the first copy had received is unknown since its storage failed: %s", d.Base.Lost).On(r.VM, d.ID).
				Try("Remove the replication with its replica data, look into the replica's storage, and enable it anew.")
		}
		if b.Kind == replication.KindVerify || d.Base.Incomplete {
			continue
		}
		if waiting := d.beyond(r.RecoveryPoints); waiting >= MaxWaiting {
			return failure.New(failure.Exhausted, failure.ReasonLimit, "%d layers wait to be merged", waiting).
				On(r.VM, d.ID).Try("It goes on by itself when the merge is done.")
		}
		file := r.layerFile(d, b.Transfer)
		if r.Refers(file) || slices.Contains(r.Garbage, file) {
			return failure.New(failure.Conflict, failure.ReasonWrongState,
				"files of an earlier transfer of that id are still being deleted").On(r.VM, d.ID)
		}
		r.Creating = append(r.Creating, file)
	}
	r.Transfer = opened
	return nil
}

// AttachLayers puts the layers that Begin asked for into the table: they exist and are durable.
func (r *Record) AttachLayers(transfer replication.ID) error {
	if err := r.checkOpen(transfer); err != nil {
		return err
	}
	for i := range r.Disks {
		d := &r.Disks[i]
		layer := r.newLayer(d, transfer)
		if slices.Contains(r.Creating, layer.File) {
			d.Layers = append(d.Layers, layer)
		}
	}
	r.Creating = nil
	return nil
}

// TakeSession makes session the disk's only one that may write; STALE_SESSION unless it is higher than all before. An
// incomplete base is being written from here.
func (r *Record) TakeSession(transfer replication.ID, diskID string, session uint64) error {
	t, err := r.transferDisk(transfer, diskID)
	if err != nil {
		return err
	}
	if session <= t.Session {
		return staleSession(session, t.Session).On(r.VM, diskID)
	}
	t.Session = session
	if base := &r.Disk(diskID).Base; base.Incomplete {
		base.Writing = true
	}
	return nil
}

// RestartPass takes a disk's cursor back to the beginning; what was received stays.
func (r *Record) RestartPass(transfer replication.ID, diskID string, session uint64) error {
	t, err := r.sessionDisk(transfer, diskID, session)
	if err != nil {
		return err
	}
	t.restart()
	return nil
}

func (t *TransferDisk) restart() {
	t.Segment, t.Chain, t.Proven, t.Root = 0, blockdiff.Hash{}, false, blockdiff.Hash{}
	t.Shipment = Shipment{}
}

// SaveCursor says that the segments before segment are proven and durable, with chain over them. A cursor never
// goes back within a pass and never past the disk's end.
func (r *Record) SaveCursor(transfer replication.ID, diskID string, session uint64, segment int64,
	chain blockdiff.Hash) error {
	t, err := r.sessionDisk(transfer, diskID, session)
	if err != nil {
		return err
	}
	last := r.Disk(diskID).Segments()
	if segment < t.Segment || segment > last {
		return failure.New(failure.Internal, failure.ReasonInternal,
			"cursor %d is not between %d and %d", segment, t.Segment, last).On(r.VM, diskID)
	}
	t.Segment, t.Chain = segment, chain
	return nil
}

// ProveDisk says that the whole disk is proven and durable, with its root.
func (r *Record) ProveDisk(transfer replication.ID, diskID string, session uint64, root blockdiff.Hash) error {
	t, err := r.sessionDisk(transfer, diskID, session)
	if err != nil {
		return err
	}
	if last := r.Disk(diskID).Segments(); t.Segment != last {
		return failure.New(failure.Precondition, failure.ReasonWrongState,
			"%d of %d segments are proven", t.Segment, last).On(r.VM, diskID)
	}
	t.Proven, t.Root = true, root
	return nil
}

// Abort discards the open transfer: its layers become garbage, everything else stays. An unknown transfer is no
// error, because its discarding may be repeated; COMMITTED when it is too late.
func (r *Record) Abort(transfer replication.ID) error {
	if transfer != "" && transfer == r.CommittedTransfer {
		return committed(transfer).On(r.VM, "")
	}
	if r.Transfer != nil && r.Transfer.ID == transfer {
		r.discardTransfer()
	}
	return nil
}

// discardTransfer drops what the transfer has received. A base that it wrote itself stays, and stays lost when its
// storage failed: it may read as if everything had been kept.
func (r *Record) discardTransfer() {
	for i := range r.Disks {
		if base := &r.Disks[i].Base; base.Incomplete && r.Transfer != nil && base.Lost == "" {
			base.Lost = r.Transfer.Failed
		}
		r.dropLayers(&r.Disks[i], func(l Layer) bool { return l.State == Receiving })
	}
	r.discardCreating()
	r.Transfer = nil
}

// discardCreating gives up layers that are not made to their end.
func (r *Record) discardCreating() {
	r.discard(r.Creating...)
	r.Creating = nil
}

// Unmade says whether layers of a point were not made to their end: a crash left them, or a storage that failed.
func (r *Record) Unmade() bool { return r.Transfer == nil && len(r.Creating) > 0 }

// dropLayers takes layers out of the table; their files become garbage.
func (r *Record) dropLayers(d *Disk, drop func(Layer) bool) {
	var kept []Layer
	for _, layer := range d.Layers {
		if drop(layer) {
			r.discard(layer.File)
		} else {
			kept = append(kept, layer)
		}
	}
	d.Layers = kept
}

func (r *Record) discard(layerFiles ...string) {
	for _, file := range layerFiles {
		r.Garbage = append(r.Garbage, file, BalloonFile(file))
	}
}

// ForgetGarbage says that files are deleted and that this is durable.
func (r *Record) ForgetGarbage(files []string) {
	r.Garbage = slices.DeleteFunc(r.Garbage, func(f string) bool { return slices.Contains(files, f) })
}
