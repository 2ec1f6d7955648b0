package relationship

import (
	"errors"
	"slices"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// fail ends a resync that has not committed and that time alone does not cure. What the replica has received stays
// for the next one.
func (r Record) fail(now time.Time, err error, figures []resync.Figures) (Record, []event.Event, error) {
	found := failure.Find(err)
	if r.Active() != nil && r.Active().awaitsMerge() {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "what has committed cannot fail: %w", err)
	}
	began := r.Active() != nil && r.Active().running()
	voids := r.Active() != nil && r.Active().voids()
	r, advanceErr := r.advance(replication.ResyncFailed)
	if advanceErr != nil {
		return r, nil, advanceErr
	}
	r.saveFigures(figures)
	r.Statistics.Failed++
	for _, disk := range r.Resync.Disks {
		r.countWire(disk)
	}
	r.leave(began, found)
	var required []event.Event
	if cause, of := r.causeOf(voids, found); cause != replication.CauseNone {
		told := r.Cause == cause
		r.setCause(now, cause, found.Disk, of)
		r.NeedsForce = errors.Is(err, errNoRecord)
		if !told {
			required = append(required, resyncRequired(r))
		}
	}
	r, events, err := r.ended(now, found.Reason, sentence(found))
	if !began {
		events = nil
	}
	events = append(events, resyncFailed(r, found))
	return r, append(events, required...), err
}

// leave keeps the unfinished transfer for the next resync, or gives it up where going on with it cannot help.
func (r *Record) leave(began bool, found *failure.Error) {
	s := r.Resync
	marksOnly := slices.ContainsFunc(s.Disks, func(d ResyncDisk) bool { return d.MarksOnly })
	useless := marksOnly || found.Reason == failure.ReasonProofFailed || found.Reason == failure.ReasonProtocol ||
		found.Reason == failure.ReasonReplicaRecord || s.Kind == replication.KindVerify
	switch {
	case found.Reason == failure.ReasonCommitted: // a later record of ours saw its end; nothing of it is open
	case !began && s.Transfer == s.ID:
	case useless:
		r.Abandoned = append(r.Abandoned, s.Transfer)
	default:
		r.Left = s.leftover()
	}
}

func (s *Resync) leftover() *Leftover {
	left := &Leftover{Transfer: s.Transfer, Kind: s.Kind, Proof: s.Proof}
	for _, disk := range s.Disks {
		cut := disk.Cut
		if disk.Restart {
			cut = tracking.Cut{}
		}
		left.Cuts, left.Figures = append(left.Cuts, cut), append(left.Figures, disk.Figures)
	}
	return left
}

// causeOf is what a failure makes of the baseline: nothing, unless it was void or the failure says that the two
// sides differ.
func (r Record) causeOf(voids bool, found *failure.Error) (replication.Cause, string) {
	evidence := "resync " + r.Resync.ID.Short() + " failed: " + found.Message
	switch found.Reason {
	case failure.ReasonReplicaRecord:
		return replication.CauseReplicaRecordMismatch, found.Message
	case failure.ReasonProofFailed:
		if r.Lineage != "" {
			return replication.CauseProofFailed, evidence
		}
	case failure.ReasonImageChanged:
		if r.Resync.Kind == replication.KindVerify {
			return replication.CauseImageModified, found.Message
		}
	}
	if voids && r.Cause == replication.CauseNone {
		return replication.CauseResyncCancelled, evidence
	}
	return replication.CauseNone, ""
}

// cancel ends a resync that has not sent its commit. The replica's base and points are as they were.
func (r Record) cancel(now time.Time, figures []resync.Figures) (Record, []event.Event, error) {
	active := r.Active()
	if active == nil {
		return r, nil, failure.New(failure.Precondition, failure.ReasonWrongState, "no resync is running")
	}
	if !active.State.CanBecome(replication.ResyncCancelled) {
		return r, nil, failure.New(failure.Precondition, failure.ReasonCommitted,
			"resync %s is %s: its commit was sent, and the replica's old content may be gone", active.ID, active.State).
			Try("Let it finish: vmreplica get %s --watch", r.Name)
	}
	began, voids := active.running(), active.voids()
	r, err := r.advance(replication.ResyncCancelled)
	if err != nil {
		return r, nil, err
	}
	r.saveFigures(figures)
	for _, disk := range r.Resync.Disks {
		r.countWire(disk)
	}
	if began || r.Resync.Transfer != r.Resync.ID {
		r.Abandoned = append(r.Abandoned, r.Resync.Transfer)
	}
	if r.Suspension != nil && r.Suspension.Code != "" {
		r.Suspension = nil
	}
	var required []event.Event
	if voids {
		r.setCause(now, replication.CauseResyncCancelled, "", "resync "+r.Resync.ID.Short()+" was cancelled")
		required = append(required, resyncRequired(r))
	}
	result := "cancelled; the replica's content is as it was"
	if r.Resync.Kind == replication.KindInitial {
		result = "cancelled; the replica has no content of the virtual machine yet"
	}
	r, events, err := r.ended(now, failure.ReasonCancelled, result)
	if !began {
		events = nil
	}
	events = append(events, resyncCancelled(r))
	return r, append(events, required...), err
}

// lost ends a resync that has committed and whose result the replica no longer has. Nothing else fails this late.
func (r Record) lost(now time.Time, disk string, evidence error) (Record, []event.Event, error) {
	if active := r.Active(); active == nil || !active.awaitsMerge() {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "no committed resync is there to be lost")
	}
	r, required, err := r.mismatched(now, disk, evidence)
	if err != nil {
		return r, nil, err
	}
	if r, err = r.advance(replication.ResyncFailed); err != nil {
		return r, nil, err
	}
	r.Statistics.Failed++
	found := failure.New(failure.Precondition, failure.ReasonReplicaRecord,
		"it was committed, but the replica lost it before its merge was done: %s", failure.Find(evidence).Message).On(r.Name, disk)
	r, events, err := r.ended(now, found.Reason, found.Message)
	events = append(events, resyncFailed(r, found))
	return r, append(events, required...), err
}

// aborted notes that the replica has discarded a transfer.
func (r Record) aborted(transfer replication.ID) (Record, []event.Event, error) {
	r = r.clone()
	r.Abandoned = slices.DeleteFunc(r.Abandoned, func(id replication.ID) bool { return id == transfer })
	return r, nil, nil
}

// sentence is a failure's message with what to do.
func sentence(found *failure.Error) string {
	if found.Remedy == "" {
		return found.Message
	}
	return found.Message + ". " + found.Remedy
}
