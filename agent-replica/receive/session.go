package receive

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// stream is the primary's call.
type stream = grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]

// session is one pass over a disk.
type session struct {
	*part
	stream stream

	segments *segments
	// cursor is what is saved; guarded by saving, but for its first value.
	cursor chain.TransferDisk
	// differs says that a verify has found a difference.
	differs atomic.Bool

	digests *credit
	// refining is in blocks, proving in bytes that were received and not worked off.
	refining, proving atomic.Int64
	asked             chan []int64
	inbound           chan *vmreplicav1.TransferRequest
	answers, bulk     chan *vmreplicav1.TransferResponse
	acks              acknowledgements
	free              chan []byte
	// proofs and scratch belong to apply.
	proofs  proofs
	scratch []byte
	// finishing is closed when everything is proven and durable.
	finishing chan struct{}
}

// start prepares the channels and positions of a session whose disk and cursor are set.
func (s *session) start(digestCredit int64) {
	if s.cursor.Segment == 0 {
		s.cursor.Chain = s.prover.Start(s.geometry)
	}
	s.segments = newSegments(s.geometry, s.prover, s.limits.OpenSegments, s.cursor.Segment, s.cursor.Chain)
	s.digests = newCredit(min(max(digestCredit, 1), maxDigestCreditBytes))
	s.asked = make(chan []int64, maxAsked)
	s.inbound = make(chan *vmreplicav1.TransferRequest, maxInbound)
	s.answers = make(chan *vmreplicav1.TransferResponse, 16)
	s.bulk = make(chan *vmreplicav1.TransferResponse, 16)
	s.acks.changed = make(chan struct{}, 1)
	s.acks.latest.ProvenSegment, s.acks.latest.DurableSegment = s.cursor.Segment, s.cursor.Segment
	s.proofs.next = s.cursor.Segment
	s.scratch = make([]byte, blockdiff.BlockSize)
	s.finishing = make(chan struct{})
	s.free = make(chan []byte, s.limits.ReadBuffers)
	for range s.limits.ReadBuffers {
		s.free <- make([]byte, pieceBlocks*blockdiff.BlockSize)
	}
}

// run answers the open and serves the stream until it has finished or ctx ends. When it returns nothing touches the
// disk any more; what waits in the stream's own calls ends with them.
func (s *session) run(ctx context.Context) error {
	opened := &vmreplicav1.TransferOpened{
		Cursor: &vmreplicav1.TransferCursor{
			Disk: s.diskID, Segment: s.cursor.Segment, Chain: s.cursor.Chain[:], Session: s.number,
		},
		RefineCreditBlocks: s.limits.RefineCreditBlocks, FrameCreditBytes: s.limits.FrameCreditBytes,
	}
	err := s.stream.Send(&vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Opened{Opened: opened}})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// A call on the stream may stand still until the stream itself ends, so nobody waits for these two.
	received, sent := make(chan error, 1), make(chan error, 1)
	go func() { received <- s.receive(ctx) }()
	go func() { sent <- s.send(ctx) }()
	group.Go(func() error { return first(ctx, received, s.finishing) })
	group.Go(func() error { return first(ctx, sent, nil) })
	pieces := make(chan piece)
	group.Go(func() error { defer close(pieces); return s.read(ctx, pieces) })
	group.Go(func() error { return s.digest(ctx, pieces) })
	group.Go(func() error { return s.refine(ctx) })
	group.Go(func() error { return s.apply(ctx) })
	group.Go(func() error { return s.save(ctx) })
	return group.Wait()
}

// first is the result that comes, nil when done closes before it, or what ended ctx.
func first(ctx context.Context, result <-chan error, done <-chan struct{}) error {
	select {
	case err := <-result:
		return err
	case <-done:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

func (s *session) unreadable(err error) error {
	var known *failure.Error
	if errors.As(err, &known) {
		return err
	}
	return failure.New(failure.Internal, failure.ReasonStorageFailed, "cannot read the replica's disk: %w", err).
		Try("Look into the replica's host for errors of its storage; then resynchronize again.")
}

// protocol is a failure of the primary to keep to the conversation.
func protocol(format string, args ...any) error {
	return failure.New(failure.Invalid, failure.ReasonProtocol, format, args...).
		Try("The primary agent is faulty or of another version; look at its log.")
}

// ended turns the end of a context into what ended it.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return ctx.Err()
}
