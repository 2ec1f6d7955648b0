package chain

import (
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

// Record is the truth about one VM on this replica: its disks' layers, its lineage, and the transfer that is
// open. It changes only in one transaction each time.
type Record struct {
	VM string
	// UID is the relationship's; another uid for the same VM is refused.
	UID replication.ID
	// Primary is the identity that owns the relationship; Authorization the entry that admitted it.
	Primary, Authorization string
	// Directory is where the VM's files lie, below the storage directory.
	Directory string
	// Term is the highest seen.
	Term uint64
	// Lineage and Cut are what the disks hold; empty before the first commit. CommittedTransfer minted them.
	Lineage, Cut      replication.ID
	CommittedTransfer replication.ID
	// ProvenTime and ProvenRoot belong to the last proof.
	ProvenTime time.Time
	ProvenRoot string
	// CommitTime is when a transfer last committed, CommitDuration how long after its beginning.
	CommitTime     time.Time
	CommitDuration time.Duration
	CreateTime     time.Time
	// Prepared is set once every base exists, durably.
	Prepared bool
	// Releasing is set when the relationship ended here: what is in Garbage goes, then the record.
	Releasing bool
	Disks     []Disk
	// Transfer is the open one; nil when none is.
	Transfer *Transfer
	// Creating are layer files that the open transfer is about to make. No layer refers to them yet.
	Creating []string
	// Garbage are files that no layer refers to any more and that are yet to be deleted.
	Garbage []string
	// told are events of the transaction that changes the record; they are not kept in it.
	told []event.Event
}

// Disk is one disk's layer table.
type Disk struct {
	ID                string
	SizeBytes         int64
	LogicalSectorSize int
	Base              Base
	// Layers stand on the base, lowest first; the receiving one, if there is one, is the last.
	Layers []Layer
	// Root is the disk's last proven root.
	Root blockdiff.Hash
	// Doubt says in words how the base was found changed; empty when it was not. A commit clears it.
	Doubt string
}

// Base is the lowest layer: a file below the storage directory, or a device that the operator mapped.
type Base struct {
	File   string
	Device string
	// Incomplete until the initial replication commits: the base is being written and cannot be used.
	Incomplete bool
	// Lost says in words what a failed sync left unknown of an incomplete base, whose transfer is discarded; such a
	// base is never gone on with.
	Lost string
	// Stamp is the base's when this agent last settled it: prepared it, committed or merged into it, or closed it.
	Stamp disk.Stamp
	// Writing is set before this agent writes to the base and taken back when it has settled it. Set on a base that
	// is not open it says that the agent has not ended in order.
	Writing bool
}

// LayerState is how far a layer is.
type LayerState string

// The states of a layer. A layer whose merge is done is no longer in the table.
const (
	Receiving LayerState = "receiving"
	Committed LayerState = "committed"
	Merging   LayerState = "merging"
)

// Layer is one differencing disk.
type Layer struct {
	File  string
	State LayerState
	// Transfer is the one that filled it.
	Transfer replication.ID
}

// Transfer is an open transfer of all disks.
type Transfer struct {
	ID    replication.ID
	Kind  replication.ResyncKind
	Proof blockdiff.Algorithm
	Disks []TransferDisk
	// StartTime is when it was begun.
	StartTime time.Time
	// Failed says in words what a failed sync of a receiving layer left unknown; such a transfer is begun anew or
	// aborted, never continued.
	Failed string
}

// TransferDisk is one disk's part of a transfer.
type TransferDisk struct {
	ID string
	// Segment and Chain are the cursor: segments before Segment are proven and durable, Chain is their chain
	// value. Never durable before the data it covers.
	Segment int64
	Chain   blockdiff.Hash
	// Session is the highest stream number seen.
	Session uint64
	// Root is set when the whole disk was proven.
	Root   blockdiff.Hash
	Proven bool
}
