package peer

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/agent-primary/relationship"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// protocolVersion is the only one so far.
const protocolVersion = 1

var proofNumbers = map[blockdiff.Algorithm]vmreplicav1.ProofAlgorithm{
	blockdiff.BLAKE3: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3,
	blockdiff.SHA256: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_SHA256,
}

// MeasureSpeeds is how fast one core of this host computes each proof. It takes a few milliseconds.
func MeasureSpeeds() map[blockdiff.Algorithm]int64 {
	speeds := map[blockdiff.Algorithm]int64{}
	for algorithm := range proofNumbers {
		speeds[algorithm] = blockdiff.MeasureSpeed(algorithm)
	}
	return speeds
}

func (r *Replica) hello(ctx context.Context) (relationship.Hello, error) {
	var answer *vmreplicav1.HelloResponse
	var other grpcpeer.Peer
	sent := time.Now()
	err := r.call(ctx, callTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.Hello(ctx, r.config.helloRequest(), grpc.Peer(&other))
		return err
	})
	if err != nil {
		return relationship.Hello{}, err
	}
	return readHello(answer, &other, sent, time.Now())
}

func (c Config) helloRequest() *vmreplicav1.HelloRequest {
	request := &vmreplicav1.HelloRequest{
		MinVersion: protocolVersion, MaxVersion: protocolVersion, AgentVersion: c.AgentVersion,
		Time: timestamppb.Now(),
	}
	for _, algorithm := range slices.Sorted(maps.Keys(c.Speeds)) {
		request.Proofs = append(request.Proofs, &vmreplicav1.ProofSpeed{
			Algorithm: proofNumbers[algorithm], BytesPerSecond: c.Speeds[algorithm],
		})
	}
	return request
}

func readHello(
	answer *vmreplicav1.HelloResponse, other *grpcpeer.Peer, sent, received time.Time,
) (relationship.Hello, error) {
	if answer.GetVersion() != protocolVersion {
		return relationship.Hello{}, failure.New(failure.Unsupported, failure.ReasonUnsupported,
			"the replica speaks version %d of the protocol, this agent version %d", answer.GetVersion(), protocolVersion).
			Try("Run versions that have a protocol in common.")
	}
	proof, err := proofFromProto(answer.GetProof())
	if err != nil {
		return relationship.Hello{}, err
	}
	if !slices.Contains(answer.GetCodecs(), vmreplicav1.Codec_CODEC_NONE) ||
		!slices.Contains(answer.GetCodecs(), vmreplicav1.Codec_CODEC_ZSTD) {
		return relationship.Hello{}, violation("that it does not take the codecs none and zstd")
	}
	hello := relationship.Hello{
		AgentVersion: cut(answer.GetAgentVersion()), Version: answer.GetVersion(), Proof: proof,
		Authorization: cut(answer.GetAuthorization()), FreeBytes: answer.GetFreeBytes(),
	}
	if info, ok := other.AuthInfo.(transport.AuthInfo); ok {
		hello.Name = info.Identity.Name
	}
	if at := api.TimeFromProto(answer.GetTime()); !at.IsZero() {
		hello.Ahead = at.Sub(sent.Add(received.Sub(sent) / 2))
	}
	return hello, nil
}

func proofFromProto(number vmreplicav1.ProofAlgorithm) (blockdiff.Algorithm, error) {
	for algorithm, known := range proofNumbers {
		if known == number {
			return algorithm, nil
		}
	}
	return 0, violation("with the unknown proof algorithm %d", int32(number))
}
