package peer

import (
	"context"

	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// transfers is a Link as a resync sees it.
type transfers struct {
	*Link
	proof blockdiff.Algorithm
}

// Begin opens the transfer, or finds it again.
func (t *transfers) Begin(ctx context.Context, begin resync.Begin) ([]resync.Cursor, error) {
	request := &vmreplicav1.BeginTransferRequest{
		Relationship: t.relationship(), Transfer: string(begin.Transfer), Kind: api.TransferKindToProto(begin.Kind),
		Disks: disksToProto(begin.Disks), Proof: proofNumbers[t.proof],
		Lineage: string(begin.Lineage), Cut: string(begin.Cut), Restart: begin.Restart,
		RecoveryPoints: int32(begin.RecoveryPoints), MarksOnlyDisks: begin.MarksOnly,
	}
	var answer *vmreplicav1.BeginTransferResponse
	err := t.replica.call(ctx, changeTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.BeginTransfer(ctx, request)
		return err
	})
	if err != nil {
		return nil, t.located(err)
	}
	cursors, err := readCursors(answer.GetCursors(), begin.Disks)
	return cursors, t.located(err)
}

// Commit asks for the commit.
func (t *transfers) Commit(ctx context.Context, commit resync.Commit) (resync.Committed, error) {
	request := &vmreplicav1.CommitTransferRequest{
		Relationship: t.relationship(), Transfer: string(commit.Transfer),
		Lineage: string(commit.Lineage), Cut: string(commit.Cut), CutTime: api.TimeToProto(commit.CutTime),
	}
	for _, disk := range commit.Roots {
		named := &vmreplicav1.CommitDisk{Id: disk.Disk, Root: disk.Root[:], Shipment: string(disk.Shipment)}
		if disk.Shipment != "" {
			named.ShipmentRoot = disk.ShipmentRoot[:]
		}
		request.Disks = append(request.Disks, named)
	}
	var answer *vmreplicav1.CommitTransferResponse
	err := t.replica.call(ctx, changeTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.CommitTransfer(ctx, request)
		return err
	})
	if err != nil {
		return resync.Committed{}, t.located(err)
	}
	if answer.GetLineage() != request.GetLineage() || answer.GetCut() != request.GetCut() {
		return resync.Committed{}, t.located(violation("that it committed lineage %q and cut %q instead of %s and %s",
			cut(answer.GetLineage()), cut(answer.GetCut()), commit.Lineage.Short(), commit.Cut.Short()))
	}
	return resync.Committed{MergePending: answer.GetMergePending()}, nil
}

// Abort discards the transfer.
func (t *transfers) Abort(ctx context.Context, transfer replication.ID) error {
	err := t.replica.call(ctx, changeTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) error {
		_, err := client.AbortTransfer(ctx, &vmreplicav1.AbortTransferRequest{
			Relationship: t.relationship(), Transfer: string(transfer),
		})
		return err
	})
	return t.located(err)
}
