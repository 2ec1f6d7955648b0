package receive

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// shipStream is the primary's call.
type shipStream = grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]

// shipment is one shipment to a disk.
type shipment struct {
	*part
	stream shipStream
	id     replication.ID

	inbound chan *vmreplicav1.ShipRequest
	// applied is the sequence of the last frame that was written, and changed has room for one note that it has moved.
	applied atomic.Uint64
	changed chan struct{}
	// root, frames and covered are of what was written; they belong to apply until finishing is closed.
	root    blockdiff.Hash
	frames  uint64
	covered int64
	// finishing is closed when everything is durable and in the record.
	finishing chan struct{}
}

// Ship serves one shipment to a disk. Its first message names and admits it.
func (r *Receiver) Ship(stream shipStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return protocol("the first message is no open")
	}
	asked := opening{
		named: open.GetRelationship(), take: (*chain.VM).BeginShipment,
		session: chain.Session{
			Transfer: replication.ID(open.GetTransfer()), Disk: open.GetDisk(), Number: open.GetSession(),
			Shipment: replication.ID(open.GetShipment()),
		},
	}
	asked.start = func(p *part, _ chain.TransferDisk) worker { return newShipment(p, stream, asked.session.Shipment) }
	return r.serve(stream.Context(), asked)
}

func newShipment(p *part, stream shipStream, id replication.ID) *shipment {
	return &shipment{
		part: p, stream: stream, id: id, root: p.prover.StartShipment(p.geometry),
		inbound: make(chan *vmreplicav1.ShipRequest, maxInbound), changed: make(chan struct{}, 1),
		finishing: make(chan struct{}),
	}
}

// run answers the open and serves the stream; see worker.
func (s *shipment) run(ctx context.Context) error {
	opened := &vmreplicav1.ShipOpened{FrameCreditBytes: s.limits.FrameCreditBytes}
	if err := s.stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Opened{Opened: opened}}); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	// A call on the stream may stand still until the stream itself ends, so nobody waits for these two.
	received, sent := make(chan error, 1), make(chan error, 1)
	go func() { received <- s.receive(ctx) }()
	go func() { sent <- s.send(ctx) }()
	group.Go(func() error { return first(ctx, received, s.finishing) })
	group.Go(func() error { return first(ctx, sent, nil) })
	group.Go(func() error { return s.apply(ctx) })
	group.Go(func() error { return s.keep(ctx) })
	return group.Wait()
}

// send sends acknowledgements, and in the end that everything is durable.
func (s *shipment) send(ctx context.Context) error {
	acknowledged := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-s.changed:
			sequence := s.applied.Load()
			if sequence == acknowledged {
				continue
			}
			acknowledged = sequence
			acknowledgement := &vmreplicav1.ShipAcknowledgement{FrameSequence: sequence}
			err := s.stream.Send(&vmreplicav1.ShipResponse{
				Message: &vmreplicav1.ShipResponse_Acknowledgement{Acknowledgement: acknowledgement},
			})
			if err != nil {
				return err
			}
		case <-s.finishing:
			finished := &vmreplicav1.ShipFinished{Root: s.root[:]}
			return s.stream.Send(&vmreplicav1.ShipResponse{Message: &vmreplicav1.ShipResponse_Finished{Finished: finished}})
		}
	}
}
