package peer

import (
	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

var codecNumbers = map[blockdiff.Codec]vmreplicav1.Codec{
	blockdiff.CodecNone: vmreplicav1.Codec_CODEC_NONE,
	blockdiff.CodecZstd: vmreplicav1.Codec_CODEC_ZSTD,
}

// requestToProto is a message on the wire and how many bytes of content it carries. Payloads are not copied: they
// must not change until the message was sent.
func requestToProto(request resync.Request) (*vmreplicav1.TransferRequest, int, error) {
	switch request := request.(type) {
	case resync.DigestCredit:
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_DigestCredit{
			DigestCredit: &vmreplicav1.DigestCredit{Bytes: request.Bytes},
		}}, 0, nil
	case resync.Refine:
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Refine{
			Refine: &vmreplicav1.RefineRequest{Blocks: request.Blocks},
		}}, 4 * len(request.Blocks), nil
	case resync.Frame:
		return frameToProto(&request)
	case *resync.Frame:
		return frameToProto(request)
	case resync.Proofs:
		return proofsToProto(request)
	case resync.Finish:
		return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Finish{
			Finish: &vmreplicav1.TransferFinish{Root: request.Root[:]},
		}}, len(request.Root), nil
	}
	return nil, 0, failure.New(failure.Internal, failure.ReasonInternal, "a %T is no message to a replica", request)
}

func frameToProto(frame *resync.Frame) (*vmreplicav1.TransferRequest, int, error) {
	return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Frame{Frame: frameMessage(frame)}}, frameBytes(frame), nil
}

func frameMessage(frame *resync.Frame) *vmreplicav1.Frame {
	return &vmreplicav1.Frame{
		Sequence: frame.Sequence, Extents: frame.Frame.Extents, Codec: codecNumbers[frame.Frame.Codec],
		PlaintextBytes: frame.Frame.PlaintextBytes, PlaintextDigest: frame.Frame.PlaintextDigest,
		Payload: frame.Frame.Payload,
	}
}

func frameBytes(frame *resync.Frame) int { return len(frame.Frame.Extents) + len(frame.Frame.Payload) }

func proofsToProto(proofs resync.Proofs) (*vmreplicav1.TransferRequest, int, error) {
	content := 0
	converted := &vmreplicav1.SegmentProofs{Runs: make([]*vmreplicav1.SegmentProofRun, 0, len(proofs.Runs))}
	for _, run := range proofs.Runs {
		joined := joinHashes(run.Hashes)
		content += len(joined)
		converted.Runs = append(converted.Runs, &vmreplicav1.SegmentProofRun{
			FirstSegment: run.First, Count: run.Count, Hashes: joined,
		})
	}
	return &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Proofs{Proofs: converted}}, content, nil
}

func joinHashes(hashes []blockdiff.Hash) []byte {
	if len(hashes) == 0 {
		return nil
	}
	joined := make([]byte, 0, len(hashes)*len(blockdiff.Hash{}))
	for i := range hashes {
		joined = append(joined, hashes[i][:]...)
	}
	return joined
}
