package relationship

import (
	"maps"
	"slices"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

// Record is one VM's relationship as it is saved.
type Record struct {
	Name string
	UID  replication.ID
	// Revision rises with each change of what was asked: Spec and Labels.
	Revision   uint64
	Labels     map[string]string
	Spec       replication.Spec
	CreateTime time.Time
	// Prepared is set once the replica has its place; before, the creation is not finished.
	Prepared bool
	Term     uint64
	// ReplicaName is from the replica's certificate.
	ReplicaName string
	Disks       []Disk

	// Lineage and Cut are acked; empty before the first commit. The proof belongs to them.
	Lineage, Cut replication.ID
	// ProvenTime is the time of the cut that was last proven, by a commit or a verify.
	ProvenTime time.Time
	ProvenRoot string
	// LastSynchronized is when a transfer last committed, LastDuration how long it took.
	LastSynchronized time.Time
	LastDuration     time.Duration

	// Cause is why a resync is required, Evidence what it was seen from.
	Cause     replication.Cause
	CauseDisk string
	Evidence  string
	CauseTime time.Time
	// NeedsForce says that the replica has no record of the VM: only a forced resync prepares it again.
	NeedsForce bool

	// Delta is the cycle that is outstanding: the replica may hold its cut. nil when none is.
	Delta *Delta
	// LastCycle is the last one that was completed.
	LastCycle *Cycle
	// TrackedSince is when the VM was first attached through the agent; zero while it never was.
	TrackedSince time.Time
	// Pending is what waited in the logs, in bytes, when the disks were last closed.
	Pending int64
	// Superseded says that the replica was failed over to: nothing is sent any more. nil while it was not.
	Superseded *Superseded

	Suspension *Suspension
	// Resync is the present or last one.
	Resync *Resync
	// Left is the transfer of a failed resync, which the next one may go on with.
	Left *Leftover
	// Abandoned are transfers that the replica is yet to be told to discard.
	Abandoned []replication.ID
	// Resyncs counts them; it orders the history.
	Resyncs    uint64
	Statistics Statistics
}

// Disk is one disk of a relationship.
type Disk struct {
	ID, Path          string
	Format            replication.Format
	SizeBytes         int64
	LogicalSectorSize int
	// ReplicaPath is where the replica keeps it, for an operator to read.
	ReplicaPath string
	// Stamp is the image's at the acked cut, Root its proven root there.
	Stamp disk.Stamp
	Root  string
	// Log is what is known of the disk's HRL; nil until the VM is attached through the agent.
	Log *DiskLog
	// ClosedStamp is the image's when it and its log were last closed; zero while they are open, and after a kill.
	ClosedStamp disk.Stamp
}

// Superseded is when and why the replica refused this primary for good.
type Superseded struct {
	Time   time.Time
	Reason string
}

// Suspension says why replication is suspended.
type Suspension struct {
	// Reason is the operator's, or what the agent says.
	Reason string
	// Code is the stable reason when the agent suspended by itself; empty when the operator did.
	Code string
	Time time.Time
}

// Leftover is an unfinished transfer on the replica and what it was read from.
type Leftover struct {
	Transfer replication.ID
	Kind     replication.ResyncKind
	Proof    blockdiff.Algorithm
	Cuts     []tracking.Cut
	Figures  []resync.Figures
}

// Statistics are counters since StartTime.
type Statistics struct {
	StartTime                          time.Time
	Completed, Failed, NetworkFailures uint64
	SentBytes, ReceivedBytes           int64
	// Cycles that were completed, that did not complete within the interval, and that failed.
	CyclesCompleted, CyclesMissed, CyclesFailed uint64
	// ReplicatedBytes is content that cycles sent, in all and in the largest; the durations likewise.
	ReplicatedBytes, MaxCycleBytes  int64
	CycleDuration, MaxCycleDuration time.Duration
}

// Resync is one transfer of all disks, from its request to its end.
type Resync struct {
	ID     replication.ID
	Number uint64
	VM     string
	Kind   replication.ResyncKind
	State  replication.ResyncState
	// Transfer is what the replica knows it by: its ID, or that of the unfinished one it goes on with.
	Transfer replication.ID
	// Restart discards what another transfer has left on the replica.
	Restart bool
	// Force is the operator's word, until it is used, that a replica without a record may be prepared.
	Force bool
	// Proof is set when it begins.
	Proof blockdiff.Algorithm
	// Cause is why it was started, in words; Auto that the policy started it and no operator.
	Cause string
	Auto  bool

	CreateTime time.Time
	// StartTime is when it is to start, and once it has, when it did.
	StartTime, CommitTime, EndTime time.Time
	// CutTime is when the images were as its passes read them: the last cut's; zero before it begins.
	CutTime time.Time
	// Reason is stable, of a failure or of what is being waited for; Result a sentence when it ended.
	Reason, Result string
	Reconnects     uint32
	// Restarts counts passes that began again because an image had changed; InRow those since it was started or
	// resumed.
	Restarts, InRow uint32
	// Rounds were sent while catching up, the cut included.
	Rounds uint32
	// Lineage and Cut are outstanding from Committing on; Root is the proven one over all disks.
	Lineage, Cut replication.ID
	Root         string
	Disks        []ResyncDisk
}

// ResyncDisk is one disk of a resync.
type ResyncDisk struct {
	ID, Path  string
	SizeBytes int64
	// Cut is the one that the pass reads.
	Cut tracking.Cut
	// Restart says that the next stream begins at 0.
	Restart bool
	// Figures are the progress when it was last saved.
	Figures  resync.Figures
	Duration time.Duration
	// Root is the primary's, ReplicaRoot what the replica holds; zero before the end of the pass.
	Root, ReplicaRoot blockdiff.Hash
	// MarksOnly says that the disk's log was exact when the resync began: what it has marked is sent, nothing compared.
	MarksOnly bool
	// Shipment names what was sent last while catching up, with its root; empty for a disk that nothing writes to.
	Shipment      replication.ID
	ShipmentRoot  blockdiff.Hash
	CaughtUpBytes int64
}

// committed is the root that the replica's record has of the disk after the commit.
func (d ResyncDisk) committed(prover *blockdiff.Prover) blockdiff.Hash {
	if d.Shipment == "" {
		return d.Root
	}
	return prover.Extend(d.Root, d.ShipmentRoot)
}

// State follows from the record.
func (r Record) State() replication.State {
	active := r.Active()
	running := active != nil && active.running()
	switch {
	case r.Superseded != nil:
		return replication.FailedOver
	case !r.Prepared:
		return replication.Error
	case r.Suspension != nil && running && active.Kind != replication.KindVerify:
		return replication.ResynchronizeSuspended
	case r.Suspension != nil:
		return replication.Suspended
	case running && active.Kind == replication.KindInitial:
		return replication.InitialReplicationInProgress
	case running && active.Kind == replication.KindResync:
		return replication.Resynchronizing
	case r.Cause != replication.CauseNone:
		return replication.WaitingForStartResynchronize
	case r.Lineage == "":
		return replication.ReadyForInitialReplication
	default:
		return replication.Replicating
	}
}

// Active is the resync that has not ended; nil when there is none.
func (r Record) Active() *Resync {
	if r.Resync == nil || r.Resync.State.Ended() {
		return nil
	}
	return r.Resync
}

// running says that it has begun and has not committed.
func (s *Resync) running() bool {
	return s.State == replication.ResyncComparing || s.State == replication.ResyncCatchingUp ||
		s.State == replication.ResyncCommitting
}

// awaitsMerge says that it has committed and that the replica's merge is not known to be done.
func (s *Resync) awaitsMerge() bool {
	return s.State == replication.ResyncCommitted || s.State == replication.ResyncMerging
}

// voids says that the baseline it began on is gone and nothing has taken its place.
func (s *Resync) voids() bool { return s.running() && s.Kind == replication.KindResync }

// clone is a copy that shares nothing that a transition changes.
func (r Record) clone() Record {
	r.Labels = maps.Clone(r.Labels)
	r.Disks = slices.Clone(r.Disks)
	r.Abandoned = slices.Clone(r.Abandoned)
	r.Spec.Disks = slices.Clone(r.Spec.Disks)
	if r.Resync != nil {
		r.Resync = r.Resync.clone()
	}
	return r
}

func (s *Resync) clone() *Resync {
	copied := *s
	copied.Disks = slices.Clone(s.Disks)
	return &copied
}
