package replica

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/build"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// protocolVersion is the one version of the transfer protocol.
const protocolVersion = 1

// Receiver serves open transfers. Their calls are admitted before they reach it, but for Transfer and Ship, whose first
// messages name the VM.
type Receiver interface {
	BeginTransfer(context.Context, *vmreplicav1.BeginTransferRequest) (*vmreplicav1.BeginTransferResponse, error)
	Transfer(grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error
	Ship(grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error
	CommitTransfer(context.Context, *vmreplicav1.CommitTransferRequest) (*vmreplicav1.CommitTransferResponse, error)
	AbortTransfer(context.Context, *vmreplicav1.AbortTransferRequest) (*vmreplicav1.AbortTransferResponse, error)
	// End stops a VM's streams and gives its disks back; Refuse tells its primary why; Close does so for all VMs, for
	// good.
	End(vm string)
	Refuse(vm string, cause *failure.Error)
	Close()
	// Supersede stops the streams of a lower term.
	Supersede(vm string, term uint64)
	// Run closes disks that nobody uses until ctx ends.
	Run(ctx context.Context) error
}

// transferService serves the pair's own conversation.
type transferService struct {
	vmreplicav1.UnimplementedTransferServiceServer
	gate     *Gate
	registry *chain.Registry
	storage  *storage.Storage
	merger   *merge.Merger
	usage    *usage
	receiver Receiver
	// obstacles are forgotten with the relationship.
	obstacles *obstacles
	// speeds are of this host's proofs, in bytes a second of one core.
	speeds map[blockdiff.Algorithm]int64
}

var proofAlgorithms = map[vmreplicav1.ProofAlgorithm]blockdiff.Algorithm{
	vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3: blockdiff.BLAKE3,
	vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_SHA256: blockdiff.SHA256,
}

func measureSpeeds() map[blockdiff.Algorithm]int64 {
	speeds := map[blockdiff.Algorithm]int64{}
	for _, algorithm := range proofAlgorithms {
		speeds[algorithm] = blockdiff.MeasureSpeed(algorithm)
	}
	return speeds
}

// Hello agrees on version and proof. A caller without an entry is answered too, so that it can be told.
func (s *transferService) Hello(ctx context.Context, r *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
	if r.GetMinVersion() > protocolVersion || r.GetMaxVersion() < protocolVersion {
		return nil, failure.New(failure.Unsupported, failure.ReasonUnsupported,
			"the primary speaks versions %d to %d, this replica version %d", r.GetMinVersion(), r.GetMaxVersion(),
			protocolVersion).Try("Bring both agents to the same release.")
	}
	proof := fastestProof(r.GetProofs(), s.speeds)
	if proof == vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_UNSPECIFIED {
		return nil, failure.New(failure.Unsupported, failure.ReasonUnsupported, "the agents share no proof algorithm")
	}
	answer := &vmreplicav1.HelloResponse{
		Version: protocolVersion, AgentVersion: build.Read().Version, Proof: proof, Time: timestamppb.Now(), FreeBytes: -1,
		Codecs: []vmreplicav1.Codec{vmreplicav1.Codec_CODEC_NONE, vmreplicav1.Codec_CODEC_ZSTD},
	}
	_, entry, err := s.gate.caller(ctx)
	if err != nil {
		return answer, ignoreDenied(err)
	}
	answer.Authorization = entry.Pattern
	answer.FreeBytes, err = s.usage.free(entry)
	return answer, err
}

func ignoreDenied(err error) error {
	if failure.Find(err).Class == failure.Denied {
		return nil
	}
	return err
}

// fastestProof is the algorithm on which the slower agent is fastest; equal speeds go to the lower number, so that
// both agents would choose alike.
func fastestProof(offered []*vmreplicav1.ProofSpeed, own map[blockdiff.Algorithm]int64) vmreplicav1.ProofAlgorithm {
	best, bestSpeed := vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_UNSPECIFIED, int64(0)
	for _, offer := range offered {
		algorithm, known := proofAlgorithms[offer.GetAlgorithm()]
		if !known || offer.GetBytesPerSecond() <= 0 {
			continue
		}
		speed := min(offer.GetBytesPerSecond(), own[algorithm])
		if speed > bestSpeed || speed == bestSpeed && offer.GetAlgorithm() < best {
			best, bestSpeed = offer.GetAlgorithm(), speed
		}
	}
	return best
}

// Reconcile takes the number of recovery points that are wanted and tells what the replica holds.
func (s *transferService) Reconcile(ctx context.Context, r *vmreplicav1.ReconcileRequest,
) (*vmreplicav1.ReconcileResponse, error) {
	if _, err := s.gate.Admit(ctx, r.GetRelationship()); err != nil {
		return nil, err
	}
	vm := s.registry.VM(r.GetRelationship().GetVm())
	if err := setRecoveryPoints(vm, r); err != nil {
		return nil, err
	}
	doubts, err := vm.Doubts()
	if err != nil {
		return nil, err
	}
	record, err := vm.Record()
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ReconcileResponse{
		Lineage: string(record.Lineage), Cut: string(record.Cut), CommittedTransfer: string(record.CommittedTransfer),
		LayersToMerge: int32(record.LayersToMerge()), Incomplete: record.Incomplete() || !record.Prepared,
	}
	if record.Transfer != nil {
		answer.Transfer = string(record.Transfer.ID)
	}
	merging := s.merger.Status(record.VM)
	answer.MergeProblem = mergeProblem(merging)
	for i, d := range record.Disks {
		held := &vmreplicav1.ReconcileDisk{Id: d.ID, Root: hexRoot(d.Root)}
		if i < len(doubts) {
			held.Doubt = doubts[i]
		}
		if merging.Disk == d.ID {
			held.MergedBytes, held.MergeTotalBytes = merging.Merged, merging.Total
		}
		answer.Disks = append(answer.Disks, held)
	}
	return answer, nil
}

// setRecoveryPoints keeps how many recovery points the primary's operator wants, where the primary says so.
func setRecoveryPoints(vm *chain.VM, r *vmreplicav1.ReconcileRequest) error {
	if r.RecoveryPoints == nil {
		return nil
	}
	wanted := int(r.GetRecoveryPoints())
	if err := replication.CheckRecoveryPoints(wanted); err != nil {
		return failure.Locate(err, vm.Name(), "")
	}
	if record, err := vm.Record(); err != nil || record.RecoveryPoints == wanted {
		return err
	}
	_, err := vm.Update(func(record *chain.Record) error { return record.SetPolicy(wanted) })
	return err
}

// mergeProblem is what stands in the way of a VM's merges; nil when nothing does.
func mergeProblem(status merge.Status) *vmreplicav1.MergeProblem {
	problem := status.Problem
	if problem == nil {
		return nil
	}
	return &vmreplicav1.MergeProblem{
		Reason: problem.Reason, Message: problem.Message, Remedy: problem.Remedy, Disk: problem.Disk,
		Since: api.TimeToProto(status.Since), Final: status.Final,
	}
}

// hexRoot is a root in 64 hexadecimal digits; empty when there is none.
func hexRoot(root blockdiff.Hash) string {
	if root.IsZero() {
		return ""
	}
	return root.String()
}

// removeWait bounds how long a removal waits for what is going on.
const removeWait = 20 * time.Second

// ReleaseReplica ends the relationship. Repeating it is NOT_FOUND.
func (s *transferService) ReleaseReplica(ctx context.Context, r *vmreplicav1.ReleaseReplicaRequest,
) (*vmreplicav1.ReleaseReplicaResponse, error) {
	record, err := s.gate.Admit(ctx, r.GetRelationship())
	if err != nil {
		return nil, err
	}
	notes, err := s.remove(ctx, record.VM, r.GetDeleteData())
	if err != nil {
		return nil, err
	}
	return &vmreplicav1.ReleaseReplicaResponse{Notes: notes}, nil
}

// remove ends what a transfer of the VM is doing, then the relationship.
func (s *transferService) remove(ctx context.Context, vm string, deleteData bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	s.receiver.End(vm)
	notes, err := s.registry.Remove(ctx, vm, deleteData)
	if err == nil {
		s.obstacles.Ended(vm)
	}
	return notes, err
}

// BeginTransfer admits and passes on.
func (s *transferService) BeginTransfer(ctx context.Context, r *vmreplicav1.BeginTransferRequest,
) (*vmreplicav1.BeginTransferResponse, error) {
	if _, err := s.gate.Admit(ctx, r.GetRelationship()); err != nil {
		return nil, err
	}
	return s.receiver.BeginTransfer(ctx, r)
}

// Transfer is admitted by the receiver, at its first message.
func (s *transferService) Transfer(
	stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse],
) error {
	return s.receiver.Transfer(stream)
}

// Ship is admitted by the receiver, at its first message.
func (s *transferService) Ship(stream grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error {
	return s.receiver.Ship(stream)
}

// CommitTransfer admits and passes on.
func (s *transferService) CommitTransfer(ctx context.Context, r *vmreplicav1.CommitTransferRequest,
) (*vmreplicav1.CommitTransferResponse, error) {
	if _, err := s.gate.Admit(ctx, r.GetRelationship()); err != nil {
		return nil, err
	}
	return s.receiver.CommitTransfer(ctx, r)
}

// AbortTransfer admits and passes on.
func (s *transferService) AbortTransfer(ctx context.Context, r *vmreplicav1.AbortTransferRequest,
) (*vmreplicav1.AbortTransferResponse, error) {
	if _, err := s.gate.Admit(ctx, r.GetRelationship()); err != nil {
		return nil, err
	}
	return s.receiver.AbortTransfer(ctx, r)
}
