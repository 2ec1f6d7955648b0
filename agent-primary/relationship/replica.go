package relationship

import (
	"context"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Replicas finds the replica of a relationship. It connects when the first call is made.
type Replicas interface {
	// At is the replica at address, spoken to about one relationship.
	At(address string, about Identity) Replica
}

// Transfers is the replica of open transfers: of passes, and of rounds and cuts.
type Transfers interface {
	resync.Peer
	ship.Peer
}

// Identity names a relationship to its replica.
type Identity struct {
	VM   string
	UID  replication.ID
	Term uint64
}

// Replica is the other side of one relationship. Its errors are failures that name the VM; the Retryable ones
// are cured by time.
type Replica interface {
	// Transfers is the replica for transfers that are proven with one algorithm.
	Transfers(proof blockdiff.Algorithm) Transfers
	// Hello agrees on version and algorithms.
	Hello(ctx context.Context) (Hello, error)
	// Reconcile is the replica's record, which is told how many recovery points are to be kept; a failure of class
	// NotFound when it has none.
	Reconcile(ctx context.Context, recoveryPoints int) (Position, error)
	// Prepare creates the record and the place of the disks, and answers where each lies.
	Prepare(ctx context.Context, preparation Preparation) ([]string, error)
	// Release ends the relationship there and answers what was left or deleted, in sentences.
	Release(ctx context.Context, deleteData bool) ([]string, error)
}

// Hello is what a replica says of itself.
type Hello struct {
	// Name is the replica's, from its certificate.
	Name         string
	AgentVersion string
	Version      uint32
	// Proof is the algorithm that both compute fast.
	Proof blockdiff.Algorithm
	// Authorization is the entry that admits this primary; empty when none does.
	Authorization string
	// FreeBytes is the space where the disks land; -1 when it is not known.
	FreeBytes int64
	// Ahead is by how much the replica's clock is ahead of ours.
	Ahead time.Duration
}

// Position is the replica's record of a relationship: the truth about what it holds.
type Position struct {
	// Lineage and Cut are what its disks hold; empty before the first commit.
	Lineage, Cut replication.ID
	// Transfer is the open one, CommittedTransfer the one whose commit minted Lineage; empty for none.
	Transfer, CommittedTransfer replication.ID
	// LayersToMerge still wait for their merge.
	LayersToMerge int
	// Incomplete says that a base is not complete: no first copy has committed.
	Incomplete bool
	// MergeProblem stands in the way of the merges; nil when nothing does.
	MergeProblem *MergeProblem
	Disks        []PositionDisk
}

// MergeProblem is why a replica's merge waits, or has ended without being done. What was committed is whole.
type MergeProblem struct {
	// Found says what happened, to which disk, and what to do.
	Found *failure.Error
	// Since is when the replica first saw it.
	Since time.Time
	// Final says that only a new start of the replica agent tries it again.
	Final bool
}

// PositionDisk is one disk of a Position.
type PositionDisk struct {
	ID string
	// Doubt says in words how the replica's files are not as it left them; empty when they are.
	Doubt                        string
	Root                         string
	MergedBytes, MergeTotalBytes int64
}

// Preparation is what a replica is asked to make place for.
type Preparation struct {
	Disks []Place
	// UseExisting adopts what lies there; ValidateOnly creates nothing.
	UseExisting, ValidateOnly bool
}

// Place is where a replica is to hold a disk: the format of its base, and the policy for its differencing disks.
type Place struct {
	resync.BeginDisk
	Format       replication.Format
	Differencing replication.Differencing
}
