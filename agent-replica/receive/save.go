package receive

import (
	"context"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// save saves the cursor now and then, while proven segments wait to be durable.
func (s *session) save(ctx context.Context) error {
	tick := time.NewTicker(s.limits.CursorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-s.finishing:
			return nil
		case <-tick.C:
			if err := s.saveCursor(); err != nil {
				return err
			}
		}
	}
}

// saveCursor makes what is proven durable, then the cursor. A verify that found a difference keeps the cursor it
// had: the chain beyond it is not the primary's.
func (s *session) saveCursor() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	segment, chainValue := s.segments.position()
	if segment == s.cursor.Segment || s.verifying() && s.differs.Load() {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	record, err := s.vm.SaveCursor(s.transfer, s.diskID, s.number, segment, chainValue)
	if err != nil {
		return err
	}
	s.cursor.Segment, s.cursor.Chain = segment, chainValue
	s.acknowledge(func(a *vmreplicav1.TransferAcknowledgement) {
		a.ProvenSegment, a.DurableSegment = max(a.ProvenSegment, segment), segment
	})
	if !s.verifying() {
		s.progressed()
	}
	return s.checkRoom(record)
}

// finish makes the end durable and answers the root.
func (s *session) finish(ctx context.Context, message *vmreplicav1.TransferFinish) error {
	segment, root := s.segments.position()
	switch {
	case segment != s.geometry.Segments():
		return protocol("the primary finished with %d of %d segments proven", segment, s.geometry.Segments())
	case len(message.GetRoot()) != hashBytes:
		return protocol("the primary's root has %d bytes", len(message.GetRoot()))
	case !s.verifying() && root != blockdiff.Hash(message.GetRoot()):
		return protocol("the primary finished with another root than was proven")
	}
	if err := s.saveCursor(); err != nil {
		return err
	}
	if !s.verifying() {
		_, err := s.vm.Update(func(r *chain.Record) error {
			return r.ProveDisk(s.transfer, s.diskID, s.number, root)
		})
		if err != nil {
			return err
		}
	}
	close(s.finishing)
	finished := &vmreplicav1.TransferFinished{Root: root[:]}
	return s.answer(ctx, &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Finished{Finished: finished}})
}
