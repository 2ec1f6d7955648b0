package receive

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// shipStream is the primary's call.
type shipStream = grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]

// shipping is one shipment of one disk under way: what the primary has marked, written in the order in which it comes.
type shipping struct {
	*session
	id     replication.ID
	stream shipStream
	// queued are messages that were received and not worked off, as many as their credit allows.
	queued chan *vmreplicav1.ShipRequest

	root    blockdiff.Hash
	frames  uint64
	covered int64
}

// maxQueuedFrames bounds the frames that wait, however small they are.
const maxQueuedFrames = 4096

// Ship serves one shipment. Its first message names and admits it.
func (r *Receiver) Ship(stream shipStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return protocol("the first message is no open")
	}
	named := open.GetRelationship()
	if _, err := r.Gate.Admit(stream.Context(), named); err != nil {
		return err
	}
	t, err := r.enter(named.GetVm())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	one := &running{number: open.GetSession(), stop: cancel, done: make(chan struct{})}
	s, err := r.takeShipment(ctx, t, open, one)
	t.changing.Unlock()
	if err != nil {
		return failure.Locate(err, named.GetVm(), open.GetDisk())
	}
	s.stream = stream
	if err = s.run(ctx); err != nil {
		err = s.failTransfer(err)
	}
	t.leave(open.GetDisk(), one)
	if err != nil && (s.spoiled.Load() || failure.Find(err).Reason == failure.ReasonStorageFailed) {
		r.End(named.GetVm())
	}
	err = failure.Locate(err, named.GetVm(), open.GetDisk())
	r.noteObstacle(named.GetVm(), err)
	return err
}

// takeShipment makes one the disk's session. The caller has entered t.
func (r *Receiver) takeShipment(ctx context.Context, t *transfer, open *vmreplicav1.ShipOpen, one *running) (*shipping, error) {
	id := replication.ID(open.GetShipment())
	if id == "" {
		return nil, protocol("the shipment has no id")
	}
	record, err := t.takeSession(ctx, one, chain.Session{
		Transfer: replication.ID(open.GetTransfer()), Disk: open.GetDisk(), Number: one.number, Shipment: id,
		Term: open.GetRelationship().GetTerm(), Time: time.Now().UTC(),
	})
	if err != nil {
		return nil, err
	}
	base, err := r.session(t, record, open.GetDisk())
	if err != nil {
		return nil, err
	}
	base.number, base.decoder = one.number, blockdiff.NewDecoder()
	base.written.Store(true)
	t.join(open.GetDisk(), one)
	return &shipping{
		session: base, id: id, queued: make(chan *vmreplicav1.ShipRequest, maxQueuedFrames),
		root: base.prover.StartShipment(base.geometry),
	}, nil
}

// run answers the open and serves the stream until it has finished or ctx ends. When it returns nothing touches the disk
// any more; what waits in the stream's own calls ends with them.
func (s *shipping) run(ctx context.Context) error {
	opened := &vmreplicav1.ShipOpened{FrameCreditBytes: s.limits.FrameCreditBytes}
	err := s.stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Opened{Opened: opened}})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	finished := make(chan struct{})
	// A call on the stream may stand still until the stream itself ends, so nobody waits for this one.
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx) }()
	group.Go(func() error { return first(ctx, received, finished) })
	group.Go(func() error {
		defer close(finished)
		return s.apply(ctx)
	})
	return group.Wait()
}

// receive takes the primary's messages and never waits: what does not fit is a fault of the primary.
func (s *shipping) receive(ctx context.Context) error {
	for sequence := uint64(1); ; sequence++ {
		request, err := s.stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return ended(ctx)
		case errors.Is(err, io.EOF):
			return protocol("the primary ended a shipment before its finish")
		case err != nil:
			return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the shipment from the primary broke: %w", err)
		}
		switch message := request.GetMessage().(type) {
		case *vmreplicav1.ShipRequest_Frame:
			if err := s.receiveFrame(message.Frame, sequence); err != nil {
				return err
			}
		case *vmreplicav1.ShipRequest_Finish:
			if err := offer(s.queued, request); err != nil {
				return err
			}
			<-ctx.Done() // nothing follows
			return ended(ctx)
		default:
			return protocol("a message without content, or a second open")
		}
		if err := offer(s.queued, request); err != nil {
			return err
		}
	}
}

func (s *shipping) receiveFrame(message *vmreplicav1.Frame, sequence uint64) error {
	frame := frameOf(message)
	if message.GetSequence() != sequence {
		return protocol("frame %d where %d was due", message.GetSequence(), sequence)
	}
	if len(frame.Payload) > int(frame.PlaintextBytes) || len(frame.Extents) > maxExtentsBytes {
		return protocol("a frame of %d bytes has %d bytes of payload and %d of extents", frame.PlaintextBytes,
			len(frame.Payload), len(frame.Extents))
	}
	cost := frame.CreditBytes()
	if underWay := s.framing.Add(cost); underWay > cost && underWay > s.limits.FrameCreditBytes {
		return protocol("%d bytes of frames are under way; the credit is %d", underWay, s.limits.FrameCreditBytes)
	}
	return nil
}

// apply writes frames in the order they came, until the finish.
func (s *shipping) apply(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case request := <-s.queued:
			if finish := request.GetFinish(); finish != nil {
				return s.finish(finish)
			}
			if err := s.applyFrame(request.GetFrame()); err != nil {
				return err
			}
		}
	}
}

// applyFrame writes one frame and acknowledges it.
func (s *shipping) applyFrame(message *vmreplicav1.Frame) error {
	frame := frameOf(message)
	hash := s.prover.NewFrameHash(frame.Extents)
	err := s.decoder.Decode(s.geometry, frame, func(extent blockdiff.Extent, data []byte) error {
		s.covered += extent.Length
		hash.Add(data)
		return write(s.target, extent, data)
	})
	if errors.Is(err, blockdiff.ErrFrame) {
		err = failure.New(failure.Corrupt, failure.ReasonProtocol, "frame %d: %w", message.GetSequence(), err)
	}
	if err != nil {
		return err
	}
	s.frames++
	s.root = s.prover.Extend(s.root, hash.Sum())
	s.framing.Add(-frame.CreditBytes())
	acknowledgement := &vmreplicav1.ShipAcknowledgement{FrameSequence: message.GetSequence()}
	return s.stream.Send(&vmreplicav1.ShipResponse{
		Message: &vmreplicav1.ShipResponse_Acknowledgement{Acknowledgement: acknowledgement},
	})
}

// write does to a disk what an extent says.
func write(target disk.Disk, extent blockdiff.Extent, data []byte) error {
	var err error
	switch extent.Kind {
	case blockdiff.ExtentData:
		_, err = target.WriteAt(data, extent.Offset)
	case blockdiff.ExtentZero:
		err = target.Zero(extent.Offset, extent.Length)
	default:
		err = target.Unmap(extent.Offset, extent.Length)
	}
	if err != nil {
		return storage.Failure(err)
	}
	return nil
}

// finish compares the root, makes everything durable, records that and answers.
func (s *shipping) finish(message *vmreplicav1.ShipFinish) error {
	switch {
	case len(message.GetRoot()) != hashBytes:
		return protocol("the primary's root has %d bytes", len(message.GetRoot()))
	case message.GetFrames() != s.frames || message.GetCoveredBytes() != s.covered || blockdiff.Hash(message.GetRoot()) != s.root:
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"the shipment has %d frames over %d bytes, sent were %d over %d, or its content is another one", s.frames, s.covered,
			message.GetFrames(), message.GetCoveredBytes()).Try("It is sent again; if it comes back, test the memory and the network of both hosts.")
	}
	if err := s.flush(); err != nil {
		return err
	}
	record, err := s.vm.FinishShipment(s.transfer, s.diskID, s.number, chain.Shipment{ID: s.id, Root: s.root})
	if err != nil {
		return err
	}
	s.progressed()
	if err := s.checkRoom(record); err != nil {
		return err
	}
	return s.stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Finished{
		Finished: &vmreplicav1.ShipFinished{Root: s.root[:]},
	}})
}
