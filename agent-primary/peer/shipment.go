package peer

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// shipment is the conversation of one shipment.
type shipment struct {
	*conversation[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]
}

// Ship opens a stream for one shipment on the data connection and waits for the replica's answer.
func (t *transfers) Ship(ctx context.Context, open ship.Open) (ship.Stream, ship.Opened, error) {
	c, err := converse(ctx, t.Link, open.Disk, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (
		grpc.BidiStreamingClient[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse], error,
	) {
		return client.Ship(ctx)
	})
	if err != nil {
		return nil, ship.Opened{}, err
	}
	s := &shipment{c}
	opened, err := s.open(open)
	if err != nil {
		s.Close()
		return nil, ship.Opened{}, err
	}
	return s, opened, nil
}

func (s *shipment) open(open ship.Open) (ship.Opened, error) {
	err := s.send(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Open{Open: &vmreplicav1.ShipOpen{
		Relationship: s.link.relationship(), Transfer: string(open.Transfer), Disk: open.Disk, Session: open.Session,
		Shipment: string(open.Shipment),
	}}}, 0)
	if err != nil && !errors.Is(err, errEnded) {
		return ship.Opened{}, err
	}
	answer, err := s.receive()
	if errors.Is(err, io.EOF) {
		err = s.located(violation("the opening of a shipment with its end"))
	}
	if err != nil {
		return ship.Opened{}, err
	}
	credit := answer.GetOpened().GetFrameCreditBytes()
	if credit < 1 || credit > maxCredit {
		return ship.Opened{}, s.located(violation("a credit of %d bytes of frames", credit))
	}
	return ship.Opened{FrameCreditBytes: credit}, nil
}

// Send paces and sends one message.
func (s *shipment) Send(request ship.Request) error {
	switch request := request.(type) {
	case resync.Frame:
		frame := frameMessage(&request)
		return s.sendOrTell(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Frame{Frame: frame}}, frameBytes(&request))
	case ship.Finish:
		return s.sendOrTell(&vmreplicav1.ShipRequest{Message: &vmreplicav1.ShipRequest_Finish{Finish: &vmreplicav1.ShipFinish{
			Root: request.Root[:], Frames: request.Frames, CoveredBytes: request.CoveredBytes,
		}}}, len(request.Root))
	}
	return s.located(failure.New(failure.Internal, failure.ReasonInternal, "a %T is no message of a shipment", request))
}

// Recv waits for one message; io.EOF when the replica ended the stream.
func (s *shipment) Recv() (ship.Response, error) {
	answer, err := s.receive()
	if err != nil {
		return nil, err
	}
	switch message := answer.GetMessage().(type) {
	case *vmreplicav1.ShipResponse_Acknowledgement:
		return ship.Acknowledgement{FrameSequence: message.Acknowledgement.GetFrameSequence()}, nil
	case *vmreplicav1.ShipResponse_Finished:
		root, err := readHash(message.Finished.GetRoot())
		return ship.Finished{Root: root}, s.located(err)
	}
	return nil, s.located(violation("a message that a shipment does not have"))
}
