package receive

import (
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
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
		Term:    request.GetRelationship().GetTerm(),
		Lineage: replication.ID(request.GetLineage()), Cut: replication.ID(request.GetCut()),
		MarksOnly: request.GetMarksOnlyDisks(), RecoveryPoints: int(request.GetRecoveryPoints()),
	}
	if err := checkFollows(begin); err != nil {
		return begin, err
	}
	if begin.Kind == 0 {
		return begin, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "unknown transfer kind %s",
			request.GetKind())
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

// checkFollows refuses ids and numbers that cannot be what a primary knows.
func checkFollows(begin chain.Begin) error {
	for _, id := range []replication.ID{begin.Lineage, begin.Cut} {
		if id != "" && !id.Valid() {
			return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%.40q has not 32 hexadecimal digits", string(id))
		}
	}
	return replication.CheckRecoveryPoints(begin.RecoveryPoints)
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
		Cut: replication.ID(request.GetCut()), Time: time.Now().UTC(),
	}
	if at := request.GetCutTime(); at != nil {
		if err := at.CheckValid(); err != nil {
			return commit, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the cut's time: %w", err)
		}
		commit.CutTime = at.AsTime()
	}
	for _, d := range request.GetDisks() {
		root, err := rootOf(d)
		if err != nil {
			return commit, failure.Locate(err, "", d.GetId())
		}
		commit.Roots = append(commit.Roots, root)
	}
	return commit, nil
}

// rootOf is what a commit says of a disk. Where nothing was shipped its shipment has neither an id nor a root.
func rootOf(d *vmreplicav1.CommitDisk) (chain.Root, error) {
	root := chain.Root{Disk: d.GetId(), Shipment: replication.ID(d.GetShipment())}
	shipped := len(d.GetShipmentRoot())
	switch {
	case len(d.GetRoot()) != hashBytes:
		return root, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a root has %d bytes", len(d.GetRoot()))
	case root.Shipment != "" && !root.Shipment.Valid(), (root.Shipment == "") != (shipped == 0), shipped > 0 && shipped != hashBytes:
		return root, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a shipment has 32 hexadecimal digits and a root of %d bytes; %.40q has %d", hashBytes, d.GetShipment(), shipped)
	}
	root.Root = blockdiff.Hash(d.GetRoot())
	if shipped > 0 {
		root.ShipmentRoot = blockdiff.Hash(d.GetShipmentRoot())
	}
	return root, nil
}
