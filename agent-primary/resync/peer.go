package resync

import (
	"context"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/replication"
)

// Peer is the replica of one relationship, as a resync needs it. Its errors are failures: Retryable ones end an
// attempt, not the resync.
type Peer interface {
	// Begin opens the transfer on the replica, or finds it again, and says where each disk's pass goes on.
	Begin(ctx context.Context, begin Begin) ([]Cursor, error)
	// Open opens one disk's stream and waits for the replica's answer.
	Open(ctx context.Context, open Open) (Stream, Opened, error)
	// Commit asks for the commit. An Unreachable failure leaves it in doubt.
	Commit(ctx context.Context, commit Commit) (Committed, error)
	// Abort discards the transfer; reason COMMITTED when it is too late.
	Abort(ctx context.Context, transfer replication.ID) error
}

// Begin names a transfer and its disks.
type Begin struct {
	Transfer replication.ID
	Kind     replication.ResyncKind
	Disks    []BeginDisk
	// Lineage and Cut are what the primary knows of the replica; empty before the first commit.
	Lineage, Cut replication.ID
	// Restart discards another open transfer.
	Restart bool
	// RecoveryPoints are to be kept by the replica, 0 to 24.
	RecoveryPoints int
	// MarksOnly are disks that no pass goes over: only what is marked is shipped.
	MarksOnly []string
}

// BeginDisk is one disk's geometry.
type BeginDisk struct {
	ID                string
	SizeBytes         int64
	LogicalSectorSize int
}

// Cursor is where a disk's pass goes on: segments before Segment are proven and durable, Chain is their chain
// value, Session the highest session number that the replica has seen.
type Cursor struct {
	Disk    string
	Segment int64
	Chain   blockdiff.Hash
	Session uint64
}

// Open names a stream.
type Open struct {
	Transfer replication.ID
	Disk     string
	Session  uint64
	// Restart begins at segment 0; what was received stays.
	Restart           bool
	DigestCreditBytes int64
}

// Opened is the replica's answer: where it begins and what it can take.
type Opened struct {
	Cursor             Cursor
	RefineCreditBlocks int64
	FrameCreditBytes   int64
}

// Stream is one disk's conversation. One goroutine sends, one receives. Recv answers io.EOF when the replica
// ended it; every other error is a failure.
type Stream interface {
	Send(Request) error
	Recv() (Response, error)
	// Close ends the stream and waits until nothing of it runs.
	Close()
	// WireBytes is what has crossed the wire so far.
	WireBytes() (sent, received int64)
}

// Request is one of DigestCredit, Refine, *blockdiff.Frame, Proofs, Finish.
type Request any

// Response is one of Digests, Refinements, Mismatch, Acknowledgement, Finished.
type Response any

// The messages to the replica.
type (
	// DigestCredit allows digests for that many more bytes of image.
	DigestCredit struct{ Bytes int64 }
	// Refine asks for the sub-block digests of blocks, ascending.
	Refine struct{ Blocks []int64 }
	// Frame is content, numbered from 1 within a session.
	Frame struct {
		Sequence uint64
		Frame    blockdiff.Frame
	}
	// Proofs are the primary's segment hashes, in order.
	Proofs struct{ Runs []ProofRun }
	// Finish is the root over the whole disk.
	Finish struct{ Root blockdiff.Hash }
)

// ProofRun is Count segments from First: their hashes, or none when all of them read as zeros.
type ProofRun struct {
	First, Count int64
	Hashes       []blockdiff.Hash
}

// The messages from the replica.
type (
	// Digests are runs of consecutive blocks.
	Digests struct{ Runs []blockdiff.Run }
	// Refinements answer a Refine, in its order.
	Refinements struct {
		Blocks  []int64
		Digests [][blockdiff.SubBlocksPerBlock]uint64
	}
	// Mismatch is a segment that the replica would hold differently, by its leaves.
	Mismatch struct {
		Segment int64
		Leaves  []blockdiff.Hash
	}
	// Acknowledgement gives back the credit of frames and tells the progress.
	Acknowledgement struct {
		FrameSequence                 uint64
		ProvenSegment, DurableSegment int64
	}
	// Finished says that everything is proven and durable.
	Finished struct{ Root blockdiff.Hash }
)

// Commit names what the replica must hold and what the commit establishes.
type Commit struct {
	Transfer     replication.ID
	Lineage, Cut replication.ID
	// CutTime is when the machine was as the cut has it.
	CutTime time.Time
	Roots   []DiskRoot
}

// DiskRoot is a disk's proven root: its pass's, or the one of the commit before where no pass went over it. Shipment is
// what was shipped last, with its root; empty where nothing was.
type DiskRoot struct {
	Disk         string
	Root         blockdiff.Hash
	Shipment     replication.ID
	ShipmentRoot blockdiff.Hash
}

// Committed is the replica's answer to a commit.
type Committed struct{ MergePending bool }
