package ship

import (
	"context"
	"errors"
	"io"

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
	stream   Stream
	window   *window
	// wire is what of the stream's bytes the progress has; one goroutine counts at a time.
	wire int64
}

// codedFrame is one that can be sent.
type codedFrame struct {
	frame   blockdiff.Frame
	hash    blockdiff.Hash
	ranges  []tracking.Range
	covered int64
	err     error
}

// shipDisk ships what the epoch has of a disk and answers its root, which the replica has proven and made durable.
func (c *catchUp) shipDisk(ctx context.Context, epoch *tracking.Epoch, index int) (blockdiff.Hash, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, opened, err := c.peer.Ship(ctx, Open{
		Transfer: c.Transfer, Disk: c.Disks[index].ID, Session: c.sessions[index], Shipment: epoch.ID,
	})
	if err != nil {
		return blockdiff.Hash{}, err
	}
	defer stream.Close()
	s := &shipment{
		catchUp: c, epoch: epoch, index: index, geometry: c.geometries[index], stream: stream,
		window: newWindow(opened.FrameCreditBytes),
	}
	defer s.countWire()
	return s.run(ctx, cancel)
}

// run starts the goroutines and waits for all of them.
func (s *shipment) run(ctx context.Context, cancel context.CancelFunc) (blockdiff.Hash, error) {
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, cancel) // a failed goroutine ends the stream that others wait on
	defer stop()
	plain := make(chan plainFrame)
	coded := pipeline.Ordered(ctx, s.Limits.Workers, plain, s.encode)
	var root, theirs blockdiff.Hash
	group.Go(func() error {
		err := newReader(s, plain).run(ctx)
		if err == nil {
			close(plain) // which is what makes the sender finish
		}
		return err
	})
	group.Go(func() (err error) { root, err = s.send(ctx, coded); return err })
	group.Go(func() (err error) { theirs, err = s.receive(ctx); return err })
	err := group.Wait()
	if err == nil && theirs != root {
		err = failure.New(failure.Corrupt, failure.ReasonProofFailed, "the replica finished a shipment with another root").
			Try("It is sent again; if it comes back, test the memory and the network of both hosts.")
	}
	return root, err
}

// encode codes a frame and hashes it. It runs on several goroutines.
func (s *shipment) encode(p plainFrame) codedFrame {
	defer p.plain.Release()
	scratch, _ := s.payloads.Get().(*[]byte)
	if scratch == nil {
		scratch = new([]byte)
	}
	frame, err := s.encoder.EncodeTo(*scratch, s.geometry, p.plain)
	if err != nil {
		return codedFrame{err: err}
	}
	hash := s.prover.NewFrameHash(frame.Extents)
	hash.Add(p.plain.Data)
	return codedFrame{frame: frame, hash: hash.Sum(), ranges: p.ranges, covered: p.covered}
}

// send sends the frames in order, each when the credit allows it, and then the root.
func (s *shipment) send(ctx context.Context, coded <-chan codedFrame) (blockdiff.Hash, error) {
	finish := Finish{Root: s.prover.StartShipment(s.geometry)}
	for next := range coded {
		if next.err != nil {
			return finish.Root, next.err
		}
		sequence, err := s.window.pay(ctx, underWay{cost: next.frame.CreditBytes(), ranges: next.ranges})
		if err != nil {
			return finish.Root, err
		}
		finish.Frames, finish.CoveredBytes = sequence, finish.CoveredBytes+next.covered
		finish.Root = s.prover.Extend(finish.Root, next.hash)
		if err := s.stream.Send(resync.Frame{Sequence: sequence, Frame: next.frame}); err != nil {
			return finish.Root, err
		}
		s.payloads.Put(&next.frame.Payload)
	}
	if ctx.Err() != nil {
		return finish.Root, ended(ctx)
	}
	s.window.finish()
	return finish.Root, s.stream.Send(finish)
}

// receive takes the replica's answers until it has finished, and answers its root.
func (s *shipment) receive(ctx context.Context) (blockdiff.Hash, error) {
	for {
		response, err := s.stream.Recv()
		if err != nil {
			return blockdiff.Hash{}, lost(ctx, err)
		}
		switch answer := response.(type) {
		case Acknowledgement:
			err = s.window.acknowledge(answer.FrameSequence, s.sent)
			s.countWire()
		case Finished:
			return answer.Root, s.window.close(s.sent)
		default:
			err = protocol("unknown message %T", response)
		}
		if err != nil {
			return blockdiff.Hash{}, err
		}
	}
}

// sent takes ranges for sent: the replica has written them.
func (s *shipment) sent(ranges []tracking.Range) error {
	for _, r := range ranges {
		if err := s.epoch.Sent(s.index, r.Offset, r.Length); err != nil {
			return err
		}
		s.outcome[s.index].Bytes += r.Length
		s.Progress.reach(r.Length)
	}
	return nil
}

func (s *shipment) countWire() {
	sent, _ := s.stream.WireBytes()
	s.Progress.wire.Add(sent - s.wire)
	s.wire = sent
}

// lost says why nothing more can be received.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if errors.Is(err, io.EOF) {
		return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the replica ended a shipment before its end")
	}
	return err
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
	return failure.New(failure.Internal, failure.ReasonProtocol, format, args...).
		Try("The replica agent is faulty or of another version; look at its log.")
}
