package receive

import (
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

var kinds = map[vmreplicav1.TransferKind]replication.ResyncKind{
	vmreplicav1.TransferKind_TRANSFER_KIND_INITIAL: replication.KindInitial,
	vmreplicav1.TransferKind_TRANSFER_KIND_RESYNC:  replication.KindResync,
	vmreplicav1.TransferKind_TRANSFER_KIND_VERIFY:  replication.KindVerify,
	vmreplicav1.TransferKind_TRANSFER_KIND_DELTA:   replication.KindDelta,
}

func beginOf(request *vmreplicav1.BeginTransferRequest) (chain.Begin, error) {
	begin := chain.Begin{
		Transfer: replication.ID(request.GetTransfer()), Kind: kinds[request.GetKind()],
		Proof: blockdiff.Algorithm(request.GetProof()), Restart: request.GetRestart(), Time: time.Now().UTC(),
		Term: request.GetRelationship().GetTerm(), Lineage: replication.ID(request.GetLineage()), Cut: replication.ID(request.GetCut()),
		MarksOnly: request.GetMarksOnlyDisks(), RecoveryPoints: int(request.GetRecoveryPoints()),
	}
	if begin.Kind == 0 {
		return begin, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "unknown transfer kind %s",
			request.GetKind())
	}
	if err := replication.CheckRecoveryPoints(begin.RecoveryPoints); err != nil {
		return begin, err
	}
	if _, err := blockdiff.NewProver(begin.Proof); err != nil {
		return begin, failure.New(failure.Unsupported, failure.ReasonUnsupported, "%w", err)
	}
	for _, d := range request.GetDisks() {
		begin.Disks = append(begin.Disks, chain.Geometry{
			ID: d.GetId(), SizeBytes: d.GetSizeBytes(), LogicalSectorSize: int(d.GetLogicalSectorBytes()),
		})
	}
	return begin, nil
}

// cursorsOf answers the cursors in the order of the primary's disks.
func cursorsOf(record chain.Record, begin chain.Begin) (*vmreplicav1.BeginTransferResponse, error) {
	prover, err := blockdiff.NewProver(begin.Proof)
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.BeginTransferResponse{}
	for _, d := range begin.Disks {
		cursor := record.Cursor(d.ID)
		value := cursor.Chain
		if cursor.Segment == 0 {
			geometry, err := blockdiff.NewGeometry(d.SizeBytes)
			if err != nil {
				return nil, err
			}
			value = prover.Start(geometry)
		}
		answer.Cursors = append(answer.Cursors, &vmreplicav1.TransferCursor{
			Disk: d.ID, Segment: cursor.Segment, Chain: value[:], Session: cursor.Session,
		})
	}
	return answer, nil
}

func commitOf(request *vmreplicav1.CommitTransferRequest) (chain.Commit, error) {
	commit := chain.Commit{
		Transfer: replication.ID(request.GetTransfer()), Term: request.GetRelationship().GetTerm(), Lineage: replication.ID(request.GetLineage()),
		Cut: replication.ID(request.GetCut()), CutTime: api.TimeFromProto(request.GetCutTime()), Time: time.Now().UTC(),
	}
	for _, d := range request.GetDisks() {
		if len(d.GetRoot()) != hashBytes {
			return commit, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a root has %d bytes",
				len(d.GetRoot())).On("", d.GetId())
		}
		root := chain.Root{Disk: d.GetId(), Root: blockdiff.Hash(d.GetRoot()), Shipment: replication.ID(d.GetShipment())}
		if root.Shipment != "" {
			if !root.Shipment.Valid() || len(d.GetShipmentRoot()) != hashBytes {
				return commit, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "shipment %.40q has a root of %d bytes",
					d.GetShipment(), len(d.GetShipmentRoot())).On("", d.GetId())
			}
			root.ShipmentRoot = blockdiff.Hash(d.GetShipmentRoot())
		}
		commit.Roots = append(commit.Roots, root)
	}
	return commit, nil
}
