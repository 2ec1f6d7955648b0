package ship

import (
	"context"

	"vmreplica/blockdiff"
	"vmreplica/internal/replication"
)

// Peer is the replica of an open transfer.
type Peer interface {
	// Ship opens a stream for one shipment and waits for the replica's answer.
	Ship(ctx context.Context, open Open) (Stream, Opened, error)
}

// Open names a shipment of a disk of an open transfer. Session is higher than every one before on the disk.
type Open struct {
	Transfer replication.ID
	Disk     string
	Session  uint64
	Shipment replication.ID
}

// Opened is the replica's answer: how much plaintext may be under way, in bytes.
type Opened struct{ FrameCreditBytes int64 }

// Stream is one shipment's conversation. One goroutine sends, one receives. Errors are failures; io.EOF when the replica
// ended it.
type Stream interface {
	Send(Request) error
	Recv() (Response, error)
	// Close ends the stream and waits until nothing of it runs.
	Close()
	// WireBytes is what has crossed the wire so far.
	WireBytes() (sent, received int64)
}

// Request is a resync.Frame or a Finish.
type Request any

// Response is an Acknowledgement or a Finished.
type Response any

type (
	// Finish says that no frame follows: the root over all of them, how many there were and how much of the disk their
	// extents cover.
	Finish struct {
		Root         blockdiff.Hash
		Frames       uint64
		CoveredBytes int64
	}
	// Acknowledgement says that the frames up to a sequence are written.
	Acknowledgement struct{ FrameSequence uint64 }
	// Finished says that the shipment has that root and is durable.
	Finished struct{ Root blockdiff.Hash }
)
