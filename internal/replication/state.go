package replication

// State is where a relationship stands; the names are Hyper-V's.
type State uint8

// States of a relationship.
const (
	ReadyForInitialReplication State = iota + 1
	InitialReplicationInProgress
	Replicating
	Suspended
	WaitingForStartResynchronize
	Resynchronizing
	ResynchronizeSuspended
	Error
	RecoveryInProgress
	FailedOver
)

var stateNames = [...]string{
	"Unknown", "ReadyForInitialReplication", "InitialReplicationInProgress", "Replicating", "Suspended",
	"WaitingForStartResynchronize", "Resynchronizing", "ResynchronizeSuspended", "Error", "RecoveryInProgress",
	"FailedOver",
}

func (s State) String() string { return name(stateNames[:], uint8(s)) }

// Activity is what an agent is doing about a relationship at this moment.
type Activity uint8

// Activities.
const (
	Idle Activity = iota + 1
	Connecting
	Comparing
	Committing
	Merging
	BackingOff
	Verifying
	Sending
	CatchingUp
)

var activityNames = [...]string{
	"Unknown", "Idle", "Connecting", "Comparing", "Committing", "Merging", "BackingOff", "Verifying", "Sending",
	"CatchingUp",
}

func (a Activity) String() string { return name(activityNames[:], uint8(a)) }

// Cause is why a resync is required.
type Cause uint8

// Causes; zero means none.
const (
	CauseNone Cause = iota
	CauseImageModified
	CauseReverted
	CauseReplicaRecordMismatch
	CauseProofFailed
	CauseResyncCancelled
	CauseHRLOverLimit
	CauseHRLWriteFailed
	CauseHRLNotClosedCleanly
	CauseTrackingLost
)

var causeNames = [...]string{
	"None", "ImageModified", "Reverted", "ReplicaRecordMismatch", "ProofFailed", "ResyncCancelled", "HrlOverLimit",
	"HrlWriteFailed", "HrlNotClosedCleanly", "TrackingLost",
}

func (c Cause) String() string { return name(causeNames[:], uint8(c)) }

// ResyncKind is what a transfer of all disks is for.
type ResyncKind uint8

// Kinds of resync.
const (
	KindInitial ResyncKind = iota + 1
	KindResync
	KindVerify
	// KindDelta is a cycle's: nothing is compared. It is no resync and has no history.
	KindDelta
)

var kindNames = [...]string{"Unknown", "Initial", "Resync", "Verify", "Delta"}

func (k ResyncKind) String() string { return name(kindNames[:], uint8(k)) }

// ResyncState is how far a resync is. The primary persists up to Committing, the replica decides Committed.
type ResyncState uint8

// States of a resync.
const (
	ResyncScheduled ResyncState = iota + 1
	ResyncComparing
	ResyncCommitting
	ResyncCommitted
	ResyncMerging
	ResyncDone
	ResyncCancelled
	ResyncFailed
	ResyncCatchingUp
)

var resyncStateNames = [...]string{
	"Unknown", "Scheduled", "Comparing", "Committing", "Committed", "Merging", "Done", "Cancelled", "Failed", "CatchingUp",
}

func (s ResyncState) String() string { return name(resyncStateNames[:], uint8(s)) }

// resyncNext is what may follow what. A commit in doubt may turn out not to have happened, and what was committed
// fails only where the replica lost it before its merge was done.
var resyncNext = map[ResyncState][]ResyncState{
	ResyncScheduled: {ResyncComparing, ResyncCancelled, ResyncFailed},
	ResyncComparing: {
		ResyncComparing, ResyncCatchingUp, ResyncCommitting, ResyncDone, ResyncCancelled, ResyncFailed,
	},
	ResyncCatchingUp: {ResyncComparing, ResyncCommitting, ResyncCancelled, ResyncFailed},
	ResyncCommitting: {ResyncComparing, ResyncCatchingUp, ResyncCommitted, ResyncFailed},
	ResyncCommitted:  {ResyncMerging, ResyncDone, ResyncFailed},
	ResyncMerging:    {ResyncDone, ResyncFailed},
}

// CanBecome says whether a resync may go from s to next.
func (s ResyncState) CanBecome(next ResyncState) bool {
	for _, allowed := range resyncNext[s] {
		if allowed == next {
			return true
		}
	}
	return false
}

// Ended says whether nothing follows.
func (s ResyncState) Ended() bool { return len(resyncNext[s]) == 0 }

func name(names []string, value uint8) string {
	if int(value) < len(names) {
		return names[value]
	}
	return names[0]
}
