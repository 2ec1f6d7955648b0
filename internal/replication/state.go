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
)

var stateNames = [...]string{
	"Unknown", "ReadyForInitialReplication", "InitialReplicationInProgress", "Replicating", "Suspended",
	"WaitingForStartResynchronize", "Resynchronizing", "ResynchronizeSuspended", "Error",
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
)

var activityNames = [...]string{
	"Unknown", "Idle", "Connecting", "Comparing", "Committing", "Merging", "BackingOff", "Verifying",
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
)

var causeNames = [...]string{
	"None", "ImageModified", "Reverted", "ReplicaRecordMismatch", "ProofFailed", "ResyncCancelled",
}

func (c Cause) String() string { return name(causeNames[:], uint8(c)) }

// ResyncKind is what a transfer of all disks is for.
type ResyncKind uint8

// Kinds of resync.
const (
	KindInitial ResyncKind = iota + 1
	KindResync
	KindVerify
)

var kindNames = [...]string{"Unknown", "Initial", "Resync", "Verify"}

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
)

var resyncStateNames = [...]string{
	"Unknown", "Scheduled", "Comparing", "Committing", "Committed", "Merging", "Done", "Cancelled", "Failed",
}

func (s ResyncState) String() string { return name(resyncStateNames[:], uint8(s)) }

// resyncNext is what may follow what. A commit in doubt may turn out not to have happened, and what was committed
// fails only where the replica lost it before its merge was done.
var resyncNext = map[ResyncState][]ResyncState{
	ResyncScheduled:  {ResyncComparing, ResyncCancelled, ResyncFailed},
	ResyncComparing:  {ResyncComparing, ResyncCommitting, ResyncDone, ResyncCancelled, ResyncFailed},
	ResyncCommitting: {ResyncComparing, ResyncCommitted, ResyncFailed},
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
