package relationship

import (
	"errors"
	"maps"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// maxReason bounds the operator's reason for a suspension, in bytes.
const maxReason = 256

// suspend stops what is done for the VM; a running resync keeps its position. Repeating it changes the reason.
func (r Record) suspend(now time.Time, reason string, figures []resync.Figures) (Record, []event.Event, error) {
	if err := r.mayChange(); err != nil {
		return r, nil, err
	}
	if len(reason) > maxReason {
		return r, nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the reason is longer than %d bytes", maxReason)
	}
	r = r.clone()
	since := now
	if r.Suspension != nil {
		since = r.Suspension.Time
	}
	r.Suspension = &Suspension{Reason: reason, Time: since}
	if active := r.Active(); active != nil && active.State != replication.ResyncMerging {
		r.saveFigures(figures)
	}
	return r, suspended(r), nil
}

// resume lets a suspended VM's replication go on; one that is not suspended is left as it is.
func (r Record) resume() (Record, []event.Event, error) {
	if err := r.mayChange(); err != nil {
		return r, nil, err
	}
	if r.Suspension == nil {
		return r, nil, nil
	}
	r = r.clone()
	r.Suspension = nil
	if active := r.Active(); active != nil {
		r.Resync.InRow = 0
	}
	return r, resumed(r), nil
}

// resynchronize is resume and the start of a resync at a time, unless one is there already.
func (r Record) resynchronize(now, at time.Time) (Record, []event.Event, error) {
	r, events, err := r.resume()
	if err != nil || r.Active() != nil {
		return r, events, err
	}
	kind := replication.KindResync
	if r.State() == replication.ReadyForInitialReplication {
		kind = replication.KindInitial
	}
	r, started, err := r.start(now, Start{Kind: kind, Time: at, Confirmed: true})
	return r, append(events, started...), err
}

// modified says that a disk's image is not the proven one any more, for a cause of changeOf.
func (r Record) modified(now time.Time, cause replication.Cause, id, evidence string) (Record, []event.Event, error) {
	return r.require(now, cause, id, evidence)
}

// changeOf is the cause that an image's stamp gives which is not the known one.
func changeOf(known, found disk.Stamp) replication.Cause {
	if known.Reverted(found) {
		return replication.CauseReverted
	}
	return replication.CauseImageModified
}

// mismatched says that the replica's record, or its files, are not what was acked. A
// failure as evidence gives its message.
func (r Record) mismatched(now time.Time, disk string, evidence error) (Record, []event.Event, error) {
	first := r.Cause == replication.CauseNone
	r, events, err := r.require(now, replication.CauseReplicaRecordMismatch, disk, failure.Find(evidence).Message)
	if first {
		r.NeedsForce = errors.Is(evidence, errNoRecord)
	}
	return r, events, err
}

// require sets a cause; the first one stays.
func (r Record) require(now time.Time, cause replication.Cause, disk, evidence string) (Record, []event.Event, error) {
	if r.Cause != replication.CauseNone {
		return r, nil, nil
	}
	r = r.clone()
	r.setCause(now, cause, disk, evidence)
	return r, []event.Event{resyncRequired(r)}, nil
}

func (r *Record) setCause(now time.Time, cause replication.Cause, disk, evidence string) {
	r.Cause, r.CauseDisk, r.Evidence, r.CauseTime, r.NeedsForce = cause, disk, evidence, now, false
}

func (r *Record) clearCause() { r.setCause(time.Time{}, replication.CauseNone, "", "") }

// Update changes what was asked; nil and empty fields stay.
type Update struct {
	// Revision is the one that the caller has seen; 0 for any.
	Revision uint64
	// Labels replace the present ones unless nil.
	Labels map[string]string
	// ReplicaAddress is where the replica is from now on; empty for where it is.
	ReplicaAddress string
	// The settings; nil ones stay.
	Interval        *time.Duration
	RecoveryPoints  *int
	AutoResync      *replication.AutoResync
	HRLLimitPercent *int
	QMPSocket       *string
}

// settings are a spec with the new settings.
func (u Update) settings(spec replication.Spec) replication.Spec {
	if u.ReplicaAddress != "" {
		spec.ReplicaAddress = u.ReplicaAddress
	}
	if u.Interval != nil {
		spec.Interval = *u.Interval
	}
	if u.RecoveryPoints != nil {
		spec.RecoveryPoints = *u.RecoveryPoints
	}
	if u.AutoResync != nil {
		spec.AutoResync = *u.AutoResync
	}
	if u.HRLLimitPercent != nil {
		spec.HRLLimitPercent = *u.HRLLimitPercent
	}
	if u.QMPSocket != nil {
		spec.QMPSocket = *u.QMPSocket
	}
	return spec
}

func (r Record) update(asked Update) (Record, []event.Event, error) {
	if asked.Revision != 0 && asked.Revision != r.Revision {
		return r, nil, failure.New(failure.Conflict, failure.ReasonWrongState, "it was changed since it was read").
			Try("Read it again and repeat the change.")
	}
	r = r.clone()
	if asked.Labels != nil {
		r.Labels = maps.Clone(asked.Labels)
	}
	r.Spec = asked.settings(r.Spec)
	r.Revision++
	return r, []event.Event{settingsChanged(r)}, nil
}

func (r Record) resetStatistics(now time.Time) (Record, []event.Event, error) {
	r = r.clone()
	r.Statistics = Statistics{StartTime: now}
	return r, nil, nil
}
