package receive

import (
	"context"
	"errors"
	"io"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// receive takes the primary's messages and never waits: what does not fit is a fault of the primary.
func (s *shipment) receive(ctx context.Context) error {
	sequence, finished := uint64(0), false
	for {
		request, err := s.stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return ended(ctx)
		case errors.Is(err, io.EOF) && finished:
			return nil
		case errors.Is(err, io.EOF):
			return protocol("the primary ended the stream before its finish")
		case err != nil:
			return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the stream from the primary broke: %w", err)
		case finished:
			return protocol("a message after the finish")
		}
		switch message := request.GetMessage().(type) {
		case *vmreplicav1.ShipRequest_Frame:
			if sequence++; message.Frame.GetSequence() != sequence {
				return protocol("frame %d where %d was due", message.Frame.GetSequence(), sequence)
			}
			err = s.admit(message.Frame)
		case *vmreplicav1.ShipRequest_Finish:
			finished = true
		default:
			err = protocol("a message without content, or a second open")
		}
		if err == nil {
			err = offer(s.inbound, request)
		}
		if err != nil {
			return err
		}
	}
}

// apply takes frames and the finish in the order they came.
func (s *shipment) apply(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case request := <-s.inbound:
			if finish := request.GetFinish(); finish != nil {
				return s.finish(finish)
			}
			if err := s.applyFrame(request.GetFrame()); err != nil {
				return err
			}
		}
	}
}

// applyFrame writes a frame's extents, then acknowledges it.
func (s *shipment) applyFrame(message *vmreplicav1.Frame) error {
	frame := frameOf(message)
	hash := s.prover.NewFrameHash(frame.Extents)
	err := s.decoder.Decode(s.geometry, frame, func(extent blockdiff.Extent, data []byte) error {
		hash.Add(data)
		s.covered += extent.Length
		return s.write(extent, data)
	})
	// After the writes: a flush that began before them does not count for them.
	s.written.Store(true)
	if err != nil {
		return undecodable(err, message.GetSequence())
	}
	s.root = s.prover.Extend(s.root, hash.Sum())
	s.frames = message.GetSequence()
	s.framing.Add(-frame.CreditBytes())
	s.applied.Store(s.frames)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return nil
}

// keep makes what is written durable now and then, so that little is left to the end, and looks whether there is room.
func (s *shipment) keep(ctx context.Context) error {
	tick := time.NewTicker(s.limits.CursorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-s.finishing:
			return nil
		case <-tick.C:
			if err := s.save(func() (chain.Record, error) {
				return s.vm.KeepSession(s.transfer, s.diskID, s.number)
			}); err != nil {
				return err
			}
		}
	}
}

// save flushes, then says so in the record.
func (s *shipment) save(record func() (chain.Record, error)) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	if err := s.flush(); err != nil {
		return err
	}
	saved, err := record()
	if err != nil {
		return err
	}
	s.progressed()
	return s.checkRoom(saved)
}

// finish compares what was written with what the primary sent, and makes it durable.
func (s *shipment) finish(message *vmreplicav1.ShipFinish) error {
	switch {
	case len(message.GetRoot()) != hashBytes:
		return protocol("the primary's root has %d bytes", len(message.GetRoot()))
	case message.GetFrames() != s.frames || message.GetCoveredBytes() != s.covered:
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"%d frames over %d bytes were received, the primary sent %d over %d", s.frames, s.covered, message.GetFrames(),
			message.GetCoveredBytes())
	case blockdiff.Hash(message.GetRoot()) != s.root:
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"what was received has root %s, what the primary sent %x", s.root, message.GetRoot())
	}
	done := chain.Shipment{ID: s.id, Root: s.root}
	err := s.save(func() (chain.Record, error) { return s.vm.FinishShipment(s.transfer, s.diskID, s.number, done) })
	if err != nil {
		return err
	}
	close(s.finishing)
	return nil
}
