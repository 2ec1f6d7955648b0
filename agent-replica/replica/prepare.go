package replica

import (
	"context"
	"time"

	"vmreplica/agent-replica/authorization"
	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// PrepareReplica makes or adopts the VM's disks.
func (s *transferService) PrepareReplica(ctx context.Context, r *vmreplicav1.PrepareReplicaRequest,
) (*vmreplicav1.PrepareReplicaResponse, error) {
	prepare, entry, err := s.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.usage.checkRoom(entry, len(prepare.Disks)); err != nil {
		return nil, failure.Locate(err, prepare.VM, "")
	}
	if r.GetValidateOnly() {
		if err := s.registry.CheckPrepare(prepare); err != nil {
			return nil, err
		}
		return &vmreplicav1.PrepareReplicaResponse{Paths: s.registry.PlannedPaths(prepare)}, nil
	}
	record, err := s.registry.Prepare(prepare)
	if err != nil {
		return nil, err
	}
	return &vmreplicav1.PrepareReplicaResponse{Paths: pathsInOrder(s.registry, record, prepare)}, nil
}

// pathsInOrder are the bases' paths in the order asked, which a repeated call may have changed.
func pathsInOrder(registry *chain.Registry, record chain.Record, asked chain.Prepare) []string {
	at := map[string]string{}
	for i, place := range registry.Paths(record) {
		at[record.Disks[i].ID] = place
	}
	paths := make([]string, len(asked.Disks))
	for i, d := range asked.Disks {
		paths[i] = at[d.ID]
	}
	return paths
}

func (s *transferService) prepare(ctx context.Context, r *vmreplicav1.PrepareReplicaRequest,
) (chain.Prepare, authorization.Entry, error) {
	identity, entry, err := s.gate.caller(ctx)
	if err != nil {
		return chain.Prepare{}, entry, err
	}
	named := r.GetRelationship()
	if err := replication.CheckName("VM", named.GetVm()); err != nil {
		return chain.Prepare{}, entry, err
	}
	uid := replication.ID(named.GetUid())
	if !uid.Valid() || named.GetTerm() == 0 {
		return chain.Prepare{}, entry, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the relationship has no uid or no term").On(named.GetVm(), "")
	}
	prepare := chain.Prepare{
		VM: named.GetVm(), UID: uid, Primary: identity.String(), Authorization: entry.Pattern,
		Directory: entry.Directory(identity, named.GetVm()), Term: named.GetTerm(), UseExisting: r.GetUseExisting(),
		Time: time.Now().UTC(),
	}
	if len(r.GetDisks()) > maxDisks {
		return prepare, entry, failure.New(failure.Invalid, failure.ReasonLimit, "a VM has at most %d disks", maxDisks).
			On(prepare.VM, "")
	}
	for _, d := range r.GetDisks() {
		asked, err := prepareDiskOf(d)
		if err != nil {
			return prepare, entry, failure.Locate(err, prepare.VM, d.GetId())
		}
		asked.Device = entry.Device(prepare.VM, d.GetId())
		prepare.Disks = append(prepare.Disks, asked)
	}
	return prepare, entry, nil
}

// prepareDiskOf checks a disk that is to be prepared.
func prepareDiskOf(d *vmreplicav1.TransferDisk) (chain.PrepareDisk, error) {
	geometry, err := geometryOf(d)
	if err != nil {
		return chain.PrepareDisk{}, err
	}
	base, err := api.BaseFormatFromProto(d.GetFormat())
	if err != nil {
		return chain.PrepareDisk{}, err
	}
	differencing, err := api.DifferencingFromProto(d.GetDifferencingFormat())
	return chain.PrepareDisk{Geometry: geometry, Format: base, Differencing: differencing}, err
}

const maxDisks = 64

// geometryOf checks a disk that a primary names.
func geometryOf(d *vmreplicav1.TransferDisk) (chain.Geometry, error) {
	if err := replication.CheckName("disk", d.GetId()); err != nil {
		return chain.Geometry{}, err
	}
	sector := d.GetLogicalSectorBytes()
	if _, err := blockdiff.NewGeometry(d.GetSizeBytes()); err != nil || sector != 512 && sector != 4096 {
		return chain.Geometry{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"no disk has %d bytes in sectors of %d", d.GetSizeBytes(), sector)
	}
	return chain.Geometry{ID: d.GetId(), SizeBytes: d.GetSizeBytes(), LogicalSectorSize: int(sector)}, nil
}
