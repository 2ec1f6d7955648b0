package receive

import (
	"context"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// What an honest primary may have under way beyond its credits in bytes and blocks.
const (
	maxInbound      = 4096
	maxAsked        = 4096
	maxProofBytes   = 4 << 20
	maxExtentsBytes = 1 << 20
)

// receive takes the primary's messages and never waits: what does not fit is a fault of the primary.
func (s *session) receive(ctx context.Context) error {
	sequence := uint64(0)
	for {
		request, err := s.stream.Recv()
		if err != nil {
			return s.receiveEnded(ctx, err)
		}
		switch message := request.GetMessage().(type) {
		case *vmreplicav1.TransferRequest_DigestCredit:
			if !s.digests.give(message.DigestCredit.GetBytes()) {
				err = protocol("%d bytes of digest credit, which were not under way", message.DigestCredit.GetBytes())
			}
		case *vmreplicav1.TransferRequest_Refine:
			err = s.receiveRefine(message.Refine.GetBlocks())
		case *vmreplicav1.TransferRequest_Frame:
			if sequence++; message.Frame.GetSequence() != sequence {
				return protocol("frame %d where %d was due", message.Frame.GetSequence(), sequence)
			}
			err = s.receiveFrame(request)
		case *vmreplicav1.TransferRequest_Proofs:
			if waiting := s.proving.Add(int64(proto.Size(request))); waiting > maxProofBytes {
				return protocol("%d bytes of proofs wait; %d may", waiting, maxProofBytes)
			}
			err = offer(s.inbound, request)
		case *vmreplicav1.TransferRequest_Finish:
			err = offer(s.inbound, request)
		default:
			err = protocol("a message without content, or a second open")
		}
		if err != nil {
			return err
		}
	}
}

// receiveEnded is nil when the primary has nothing more to say after its finish.
func (s *session) receiveEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if errors.Is(err, io.EOF) {
		select {
		case <-s.finishing:
			return nil
		default:
			return protocol("the primary ended the stream before its finish")
		}
	}
	return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the stream from the primary broke: %w", err)
}

func (s *session) receiveFrame(request *vmreplicav1.TransferRequest) error {
	if s.verifying() {
		return protocol("a frame in a verify, which writes nothing")
	}
	if err := s.admit(request.GetFrame()); err != nil {
		return err
	}
	return offer(s.inbound, request)
}

// admit takes a frame's credit, and refuses one that is larger than it may be or for which there is no credit.
func (p *part) admit(message *vmreplicav1.Frame) error {
	frame := frameOf(message)
	if len(frame.Payload) > int(frame.PlaintextBytes) || len(frame.Extents) > maxExtentsBytes {
		return protocol("a frame of %d bytes has %d bytes of payload and %d of extents", frame.PlaintextBytes,
			len(frame.Payload), len(frame.Extents))
	}
	cost := frame.CreditBytes()
	if underWay := p.framing.Add(cost); underWay > cost && underWay > p.limits.FrameCreditBytes {
		return protocol("%d bytes of frames are under way; the credit is %d", underWay, p.limits.FrameCreditBytes)
	}
	return nil
}

// receiveRefine checks that the blocks are digested and not proven.
func (s *session) receiveRefine(blocks []int64) error {
	count := int64(len(blocks))
	if underWay := s.refining.Add(count); underWay > count && underWay > s.limits.RefineCreditBlocks || count == 0 {
		return protocol("%d refinements are under way; the credit is %d", underWay, s.limits.RefineCreditBlocks)
	}
	if count > s.limits.RefineCreditBlocks {
		return protocol("%d refinements asked for at once; the credit is %d", count, s.limits.RefineCreditBlocks)
	}
	from, to := s.segments.bounds()
	for _, block := range blocks {
		offset, length := s.geometry.BlockRange(block)
		if length == 0 || offset < from || offset+length > to {
			return protocol("a refinement of block %d; bytes %d to %d can be refined", block, from, to)
		}
	}
	return offer(s.asked, blocks)
}

// offer hands value on without waiting.
func offer[T any](to chan<- T, value T) error {
	select {
	case to <- value:
		return nil
	default:
		return protocol("more messages than the credits allow (%T)", value)
	}
}
