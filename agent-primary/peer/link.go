package peer

import (
	"context"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Link is a replica spoken to about one relationship. Methods may be called concurrently.
type Link struct {
	replica *Replica
	about   relationship.Identity
}

func (l *Link) relationship() *vmreplicav1.Relationship {
	return &vmreplicav1.Relationship{Vm: l.about.VM, Uid: string(l.about.UID), Term: l.about.Term}
}

// Transfers is the replica for transfers that are proven with one algorithm.
func (l *Link) Transfers(proof blockdiff.Algorithm) relationship.Transfers {
	return &transfers{Link: l, proof: proof}
}

// located names the VM in a failure.
func (l *Link) located(err error) error { return failure.Locate(err, l.about.VM, "") }

// Hello agrees on version and algorithms.
func (l *Link) Hello(ctx context.Context) (relationship.Hello, error) {
	hello, err := l.replica.hello(ctx)
	return hello, l.located(err)
}

// Reconcile is the replica's record, which is told how many recovery points are to be kept.
func (l *Link) Reconcile(ctx context.Context, recoveryPoints int) (relationship.Position, error) {
	var answer *vmreplicav1.ReconcileResponse
	points := int32(recoveryPoints)
	err := l.replica.call(ctx, callTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.Reconcile(ctx, &vmreplicav1.ReconcileRequest{Relationship: l.relationship(), RecoveryPoints: &points})
		return err
	})
	if err != nil {
		return relationship.Position{}, l.located(err)
	}
	position, err := readPosition(answer)
	return position, l.located(err)
}

// Prepare creates the record and the place of the disks.
func (l *Link) Prepare(ctx context.Context, preparation relationship.Preparation) ([]string, error) {
	request := &vmreplicav1.PrepareReplicaRequest{
		Relationship: l.relationship(), Disks: placesToProto(preparation.Disks),
		UseExisting: preparation.UseExisting, ValidateOnly: preparation.ValidateOnly,
	}
	var answer *vmreplicav1.PrepareReplicaResponse
	err := l.replica.call(ctx, changeTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.PrepareReplica(ctx, request)
		return err
	})
	if err != nil {
		return nil, l.located(err)
	}
	paths := make([]string, 0, len(preparation.Disks))
	for _, path := range answer.GetPaths()[:min(len(answer.GetPaths()), len(preparation.Disks))] {
		paths = append(paths, cutTo(path, 4096))
	}
	if len(paths) != len(preparation.Disks) {
		return nil, l.located(violation("%d paths for %d disks", len(paths), len(preparation.Disks)))
	}
	return paths, nil
}

// Release ends the relationship on the replica.
func (l *Link) Release(ctx context.Context, deleteData bool) ([]string, error) {
	var answer *vmreplicav1.ReleaseReplicaResponse
	err := l.replica.call(ctx, changeTimeout, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (err error) {
		answer, err = client.ReleaseReplica(ctx, &vmreplicav1.ReleaseReplicaRequest{
			Relationship: l.relationship(), DeleteData: deleteData,
		})
		return err
	})
	if err != nil {
		return nil, l.located(err)
	}
	notes := answer.GetNotes()[:min(len(answer.GetNotes()), 4*maxDisks)]
	for i := range notes {
		notes[i] = cutTo(notes[i], 1024)
	}
	return notes, nil
}

func disksToProto(disks []resync.BeginDisk) []*vmreplicav1.TransferDisk {
	converted := make([]*vmreplicav1.TransferDisk, 0, len(disks))
	for _, disk := range disks {
		converted = append(converted, diskToProto(disk))
	}
	return converted
}

func diskToProto(disk resync.BeginDisk) *vmreplicav1.TransferDisk {
	return &vmreplicav1.TransferDisk{
		Id: disk.ID, SizeBytes: disk.SizeBytes, LogicalSectorBytes: uint32(disk.LogicalSectorSize),
	}
}

func placesToProto(places []relationship.Place) []*vmreplicav1.TransferDisk {
	converted := make([]*vmreplicav1.TransferDisk, 0, len(places))
	for _, place := range places {
		disk := diskToProto(place.BeginDisk)
		disk.Format, disk.DifferencingFormat = api.FormatToProto(place.Format), api.DifferencingToProto(place.Differencing)
		converted = append(converted, disk)
	}
	return converted
}
