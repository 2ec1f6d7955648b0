package relationship

import (
	"time"

	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Start asks for a resync.
type Start struct {
	Kind replication.ResyncKind
	// Time is when it is to begin, at most schedule.MaxAhead from now; zero means now.
	Time time.Time
	// Force confirms a resync that the agent would not begin by itself: that a replica which has no record of the
	// VM is prepared again.
	Force bool
	// Restart discards what an earlier, unfinished resync left on the replica.
	Restart bool
	// Confirmed is the word that a healthy, tracked machine is to be resynchronized, as Force is: its recovery points go.
	Confirmed bool
}

// start schedules a resync.
func (r Record) start(now time.Time, asked Start) (Record, []event.Event, error) {
	if err := r.mayStart(asked.Kind); err != nil {
		return r, nil, err
	}
	if asked.Kind == replication.KindResync && r.healthyTracked() && !asked.Force && !asked.Confirmed {
		return r, nil, failure.New(failure.Precondition, failure.ReasonWrongState,
			"it is tracked and in step but for what its cycles send; a resync compares everything and deletes its recovery points (%d are kept)",
			r.Spec.RecoveryPoints).Try("To do it all the same: vmreplica resync %s --force, or vmreplica suspend %s and then "+
			"vmreplica resume %s --resynchronize", r.Name, r.Name, r.Name)
	}
	at, err := schedule.StartTime(now, asked.Time)
	if err != nil {
		return r, nil, err
	}
	r = r.clone()
	r.Resyncs++
	id := replication.NewID()
	next := &Resync{
		ID: id, Transfer: id, Number: r.Resyncs, VM: r.Name, Kind: asked.Kind, State: replication.ResyncScheduled,
		Restart: asked.Restart, Force: asked.Force, Cause: r.why(asked.Kind), CreateTime: now, StartTime: at,
	}
	for _, disk := range r.Disks {
		next.Disks = append(next.Disks, ResyncDisk{ID: disk.ID, Path: disk.Path, SizeBytes: disk.SizeBytes})
	}
	r.takeUp(next, asked.Restart)
	r.Resync = next
	if at.After(now) {
		return r, []event.Event{resyncScheduled(r)}, nil
	}
	return r, nil, nil
}

// takeUp goes on with what an earlier resync of the same kind left, or gives it up.
func (r *Record) takeUp(next *Resync, restart bool) {
	left := r.Left
	if left == nil {
		return
	}
	r.Left = nil
	if restart || left.Kind != next.Kind || len(left.Cuts) != len(next.Disks) {
		r.Abandoned = append(r.Abandoned, left.Transfer)
		return
	}
	next.Transfer, next.Proof = left.Transfer, left.Proof
	for i := range next.Disks {
		figures := left.Figures[i]
		figures.WireBytesSent, figures.WireBytesReceived, figures.SegmentsResent = 0, 0, 0 // the earlier resync's own
		next.Disks[i].Cut, next.Disks[i].Figures = left.Cuts[i], figures
	}
}

// healthyTracked says that the VM is tracked and that nothing requires a resync.
func (r Record) healthyTracked() bool {
	return r.Tracked() && r.Cause == replication.CauseNone && r.State() == replication.Replicating
}

func (r Record) mayStart(kind replication.ResyncKind) error {
	if err := r.mayChange(); err != nil {
		return err
	}
	if active := r.Active(); active != nil {
		return failure.New(failure.Exists, failure.ReasonResyncRunning, "resync %s %s already", active.ID, r.standing()).
			Try("Follow it with: vmreplica get %s --watch. To end it: vmreplica cancel-resync %s", r.Name, r.Name)
	}
	state := r.State()
	if state == replication.FailedOver {
		return wrongState(state, "The replica was failed over to. Find out where the machine is to run: vmreplica describe %s", r.Name)
	}
	if state == replication.Suspended {
		return wrongState(state, "Resume first: vmreplica resume %s --resynchronize", r.Name)
	}
	switch kind {
	case replication.KindInitial:
		if state != replication.ReadyForInitialReplication {
			return wrongState(state, "Compare with the replica's copy instead: vmreplica resync %s", r.Name)
		}
	case replication.KindResync:
		if state == replication.ReadyForInitialReplication {
			return wrongState(state, "Make the first copy: vmreplica start-initial %s", r.Name)
		}
	case replication.KindVerify:
		if state == replication.ReadyForInitialReplication {
			return wrongState(state, "Make the first copy: vmreplica start-initial %s", r.Name)
		}
		if state != replication.Replicating {
			return wrongState(state, "Resynchronize first: vmreplica resync %s", r.Name)
		}
	default:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the kind of resync is not given").
			Try("State initial, resync or verify.")
	}
	return nil
}

// standing is what the active resync does, in words.
func (r Record) standing() string {
	active := r.Active()
	switch {
	case active.State != replication.ResyncScheduled:
		return "is " + active.State.String()
	case active.Reason != "":
		return "waits to begin (" + active.Reason + ")"
	case active.StartTime.After(active.CreateTime):
		return "is scheduled for " + active.StartTime.Format(time.RFC3339)
	default:
		return "is about to begin"
	}
}

// mayChange refuses everything but removal while the creation is not finished.
func (r Record) mayChange() error {
	if r.Prepared {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonWrongState, "the replica is not prepared: enabling did not finish").
		Try("Repeat vmreplica enable %s with the same arguments, or vmreplica remove %s", r.Name, r.Name)
}

func wrongState(state replication.State, remedy string, args ...any) error {
	return failure.New(failure.Precondition, failure.ReasonWrongState, "the state is %s", state).Try(remedy, args...)
}

// why is the cause of a resync in words.
func (r Record) why(kind replication.ResyncKind) string {
	if kind == replication.KindResync && r.Cause != replication.CauseNone {
		return r.Cause.String() + ": " + r.Evidence
	}
	return "asked for by an operator"
}
