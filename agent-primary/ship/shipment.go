package ship

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/pipeline"
)

// shipment is one disk's part of a round or a cut under way.
type shipment struct {
	*catchUp
	epoch    *tracking.Epoch
	index    int
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	encoder  *blockdiff.Encoder
	stream   Stream
	credit   int64

	mu sync.Mutex
	// waiting are the frames that were sent and not acknowledged, in order; paid is what they cost. Guarded by mu.
	waiting []underWay
	paid    int64
	// reading counts the frames that were read and not sent; guarded by mu.
	reading int
	// acked and quiet are told of each acknowledgement, the sender and the reader; each has room for one.
	acked, quiet chan struct{}

	sent int64
}

// underWay is a frame that was sent.
type underWay struct {
	sequence uint64
	cost     int64
	ranges   []tracking.Range
}

// plainFrame is a frame to be coded, with the ranges that it brings over whole.
type plainFrame struct {
	plain  *blockdiff.Plain
	ranges []tracking.Range
}

// codedFrame is one that can be sent.
type codedFrame struct {
	frame  blockdiff.Frame
	hash   blockdiff.Hash
	ranges []tracking.Range
	err    error
}

// shipDisk ships what the epoch has of a disk and answers its root, which the replica has proven and made durable, and
// how many bytes of content were sent.
func (c *catchUp) shipDisk(ctx context.Context, epoch *tracking.Epoch, index int, open Open) (blockdiff.Hash, int64, error) {
	geometry, err := blockdiff.NewGeometry(c.Group.Size(index))
	if err != nil {
		return blockdiff.Hash{}, 0, failure.New(failure.Invalid, failure.ReasonSizeMismatch, "%w", err)
	}
	prover, err := blockdiff.NewProver(c.Proof)
	if err != nil {
		return blockdiff.Hash{}, 0, failure.New(failure.Unsupported, failure.ReasonUnsupported, "%w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, opened, err := c.peer.Ship(ctx, open)
	if err != nil {
		return blockdiff.Hash{}, 0, err
	}
	defer stream.Close()
	s := &shipment{
		catchUp: c, epoch: epoch, index: index, geometry: geometry, prover: prover, encoder: blockdiff.NewEncoder(),
		stream: stream, credit: opened.FrameCreditBytes, acked: make(chan struct{}, 1),
		quiet: make(chan struct{}, 1),
	}
	root, err := s.run(ctx, cancel)
	wireSent, _ := stream.WireBytes()
	c.Progress.wire.Add(wireSent)
	return root, s.sent, err
}

// run reads, codes, sends and receives until the replica has finished.
func (s *shipment) run(ctx context.Context, cancel context.CancelCauseFunc) (root blockdiff.Hash, err error) {
	group, inner := errgroup.WithContext(ctx)
	// A broken cut, or a goroutine that failed, ends the stream that the others wait on.
	group.Go(func() error { return s.watch(inner) })
	stop := context.AfterFunc(inner, func() { cancel(context.Cause(inner)) })
	defer stop()
	plain := make(chan plainFrame)
	coded := pipeline.Ordered(inner, s.Limits.Workers, plain, s.encode)
	finished := make(chan blockdiff.Hash, 1)
	group.Go(func() error { defer close(plain); return s.read(inner, plain) })
	group.Go(func() (err error) { root, err = s.send(inner, coded); return err })
	group.Go(func() error { return s.receive(inner, finished) })
	err = group.Wait()
	if errors.Is(err, errFinished) {
		err = nil
	}
	if err != nil {
		return root, err
	}
	if theirs := <-finished; theirs != root {
		return root, failure.New(failure.Corrupt, failure.ReasonProofFailed, "the replica finished a shipment with another root").
			Try("It is sent again; if it comes back, test the memory and the network of both hosts.")
	}
	return root, nil
}

// errFinished ends the goroutines of a shipment that is done.
var errFinished = errors.New("the shipment is finished")

// watch ends the shipment when its cut breaks.
func (s *shipment) watch(ctx context.Context) error {
	select {
	case <-s.epoch.Broken():
		return s.epoch.Err()
	case <-ctx.Done():
		return ended(ctx)
	}
}

// encode codes a frame and hashes it. It runs on several goroutines.
func (s *shipment) encode(p plainFrame) codedFrame {
	defer p.plain.Release()
	frame, err := s.encoder.Encode(s.geometry, p.plain)
	if err != nil {
		return codedFrame{err: err}
	}
	hash := s.prover.NewFrameHash(frame.Extents)
	hash.Add(p.plain.Data)
	return codedFrame{frame: frame, hash: hash.Sum(), ranges: p.ranges}
}

// send sends the frames in order, each when the credit allows it, and then the root.
func (s *shipment) send(ctx context.Context, coded <-chan codedFrame) (root blockdiff.Hash, err error) {
	root = s.prover.StartShipment(s.geometry)
	var finish Finish
	for next := range coded {
		if next.err != nil {
			return root, next.err
		}
		finish.Frames++
		one := underWay{sequence: finish.Frames, cost: next.frame.CreditBytes(), ranges: next.ranges}
		if err := s.pay(ctx, one); err != nil {
			return root, err
		}
		for _, r := range next.ranges {
			finish.CoveredBytes += r.Length
		}
		root = s.prover.Extend(root, next.hash)
		if err := s.stream.Send(resync.Frame{Sequence: one.sequence, Frame: next.frame}); err != nil {
			return root, s.sendFailed(ctx, err)
		}
	}
	if ctx.Err() != nil {
		return root, ended(ctx)
	}
	finish.Root = root
	if err := s.stream.Send(finish); err != nil {
		return root, s.sendFailed(ctx, err)
	}
	return root, nil
}

// sendFailed waits for the receiving goroutine to say why a stream that the replica ended did.
func (s *shipment) sendFailed(ctx context.Context, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	<-ctx.Done()
	return ended(ctx)
}

// pay waits until a frame may be under way.
func (s *shipment) pay(ctx context.Context, one underWay) error {
	for {
		s.mu.Lock()
		if s.paid == 0 || s.paid+one.cost <= s.credit {
			s.paid += one.cost
			s.reading--
			s.waiting = append(s.waiting, one)
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-s.acked:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// receive takes the replica's answers until it has finished.
func (s *shipment) receive(ctx context.Context, finished chan<- blockdiff.Hash) error {
	for {
		response, err := s.stream.Recv()
		if err != nil {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			if errors.Is(err, io.EOF) {
				return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica ended a shipment before its end")
			}
			return err
		}
		switch answer := response.(type) {
		case Acknowledgement:
			err = s.acknowledge(answer.FrameSequence)
		case Finished:
			finished <- answer.Root
			if err := s.acknowledgeAll(); err != nil {
				return err
			}
			return errFinished
		default:
			err = protocol("it sent a %T", response)
		}
		if err != nil {
			return err
		}
	}
}

// acknowledge takes the frames up to a sequence for sent.
func (s *shipment) acknowledge(sequence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 || sequence < s.waiting[0].sequence-1 || sequence > s.waiting[len(s.waiting)-1].sequence {
		return protocol("it acknowledged frame %d, which is not under way", sequence)
	}
	for len(s.waiting) > 0 && s.waiting[0].sequence <= sequence {
		one := s.waiting[0]
		for _, r := range one.ranges {
			if err := s.epoch.Sent(s.index, r.Offset, r.Length); err != nil {
				return err
			}
			s.sent += r.Length
			s.Progress.sent.Add(r.Length)
		}
		s.paid -= one.cost
		s.waiting = s.waiting[1:]
	}
	for _, told := range []chan struct{}{s.acked, s.quiet} {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	return nil
}

// acknowledgeAll takes every frame for sent: the shipment is durable.
func (s *shipment) acknowledgeAll() error {
	s.mu.Lock()
	var last uint64
	if n := len(s.waiting); n > 0 {
		last = s.waiting[n-1].sequence
	}
	s.mu.Unlock()
	if last == 0 {
		return nil
	}
	return s.acknowledge(last)
}

// ended turns the end of a context into what ended it.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return ctx.Err()
}

// protocol is a failure of the replica to keep to the conversation.
func protocol(format string, args ...any) error {
	return failure.New(failure.Internal, failure.ReasonProtocol, "the replica broke the conversation of a shipment: "+format, args...).
		Try("The replica agent is faulty or of another version; look at its log.")
}
