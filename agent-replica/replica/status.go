package replica

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// observation is everything that is shown of a VM: its record and what is going on.
type observation struct {
	record chain.Record
	// doubts are by disk, in the record's order; empty strings, or none at all, when there are none.
	doubts []string
	merge  merge.Status
	doing  []chain.Purpose
	// readers are those who read points.
	readers []chain.Reader
	// full is set while the open transfer waits for room; withdrawn when the entry that admitted the primary is gone.
	full      *fullness
	withdrawn bool
}

// state follows from the record and the doubts.
func (o observation) state() replication.State {
	r := o.record
	switch {
	case r.Releasing:
		return replication.Error
	case r.FailingOver():
		return replication.RecoveryInProgress
	case r.Failover != nil:
		return replication.FailedOver
	case o.merge.Final:
		return replication.Error
	case r.Lineage == "" && r.Transfer == nil:
		return replication.ReadyForInitialReplication
	case r.Lineage == "":
		return replication.InitialReplicationInProgress
	case r.Transfer != nil && (r.Transfer.Kind == replication.KindInitial || r.Transfer.Kind == replication.KindResync):
		return replication.Resynchronizing
	case o.doubt() >= 0:
		return replication.WaitingForStartResynchronize
	default:
		return replication.Replicating
	}
}

// doubt is the index of the first disk in doubt; -1 when there is none.
func (o observation) doubt() int {
	for i, doubt := range o.doubts {
		if doubt != "" && i < len(o.record.Disks) {
			return i
		}
	}
	return -1
}

func (o observation) activity() replication.Activity {
	transferring := false
	for _, purpose := range o.doing {
		transferring = transferring || purpose == chain.ToTransfer
	}
	switch {
	case transferring:
		return o.transferring()
	case o.merge.Problem != nil:
		return replication.BackingOff
	case o.merge.Disk != "":
		return replication.Merging
	default:
		return replication.Idle
	}
}

// transferring is what the transfer that holds the disks is at.
func (o observation) transferring() replication.Activity {
	switch {
	case o.record.Transfer == nil:
		return replication.Comparing
	case o.record.Transfer.Kind == replication.KindVerify:
		return replication.Verifying
	case o.record.Transfer.Kind == replication.KindDelta:
		return replication.Sending
	case o.record.CatchingUp():
		return replication.CatchingUp
	default:
		return replication.Comparing
	}
}

// replicationOf is the VM on the wire.
func replicationOf(o observation, registry *chain.Registry, files *storage.Storage) *vmreplicav1.Replication {
	r := o.record
	reasons := o.healthReasons()
	status := &vmreplicav1.ReplicationStatus{
		Mode: vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA, State: api.StateToProto(o.state()),
		Activity: api.ActivityToProto(o.activity()), Health: api.HealthToProto(replication.Worst(reasons)),
		Peer: peerName(r.Primary), Term: r.Term, Lineage: string(r.Lineage), Cut: string(r.Cut),
		ProvenTime: api.TimeToProto(r.ProvenTime), ProvenRoot: r.ProvenRoot,
		LastSynchronizedTime: api.TimeToProto(r.CommitTime), CreateTime: api.TimeToProto(r.CreateTime),
		Resync: string(r.CommittedTransfer),
	}
	for _, reason := range reasons {
		status.HealthReasons = append(status.HealthReasons, api.HealthReasonToProto(reason))
	}
	if at := o.doubt(); at >= 0 && r.Lineage != "" {
		status.ResyncCause = api.CauseToProto(replication.CauseReplicaRecordMismatch)
		status.ResyncEvidence = o.doubts[at]
	}
	if r.CommitDuration > 0 {
		status.LastSynchronizedDuration = durationpb.New(r.CommitDuration)
	}
	if r.Transfer != nil {
		status.Resync = string(r.Transfer.ID)
	}
	if r.Failover != nil {
		status.FailoverTime, status.FailoverPoint = api.TimeToProto(r.Failover.StartTime), string(r.Failover.Point.ID)
	}
	status.RecoveryPoints = pointsOf(r, o.readers, files)
	paths := registry.Paths(r)
	for i, d := range r.Disks {
		status.Disks = append(status.Disks, o.disk(d, paths[i], files))
	}
	return &vmreplicav1.Replication{Name: r.VM, Uid: string(r.UID), Etag: string(r.UID), Status: status}
}

// peerName is the primary's name without the rest of its identity.
func peerName(primary string) string {
	if identity, err := transport.ParseIdentity(primary); err == nil {
		return identity.Name
	}
	return primary
}

func (o observation) disk(d chain.Disk, place string, files *storage.Storage) *vmreplicav1.DiskStatus {
	status := &vmreplicav1.DiskStatus{
		Id: d.ID, Path: place, Format: api.FormatToProto(d.Base.ImageFormat()), SizeBytes: d.SizeBytes,
		LogicalSectorBytes: uint32(d.LogicalSectorSize), Root: hexRoot(d.Root),
	}
	base := &vmreplicav1.Layer{
		State: vmreplicav1.Layer_STATE_BASE, File: d.Base.File, Format: string(d.Base.ImageFormat()), AllocatedBytes: -1,
	}
	if d.Base.Incomplete {
		base.State = vmreplicav1.Layer_STATE_INCOMPLETE
	}
	if d.Base.Device == "" {
		base.AllocatedBytes = allocated(files, d.Base.File)
	} else {
		base.File = d.Base.Device
	}
	status.Layers = append(status.Layers, base)
	for _, layer := range d.Layers {
		status.Layers = append(status.Layers, &vmreplicav1.Layer{
			State: layerStates[layer.State], File: layer.File, Format: string(layer.ImageFormat()),
			AllocatedBytes: allocated(files, layer.File),
		})
	}
	for _, layer := range status.Layers {
		if layer.AllocatedBytes < 0 {
			status.AllocatedBytes = -1
			break
		}
		status.AllocatedBytes += layer.AllocatedBytes
	}
	status.Progress = o.progress(d)
	return status
}

var layerStates = map[chain.LayerState]vmreplicav1.Layer_State{
	chain.Receiving: vmreplicav1.Layer_STATE_RECEIVING,
	chain.Committed: vmreplicav1.Layer_STATE_COMMITTED,
	chain.Merging:   vmreplicav1.Layer_STATE_MERGING,
}

// allocated is the space of a file; -1 when it cannot be known.
func allocated(files *storage.Storage, file string) int64 {
	bytes, err := files.Allocated(file)
	if err != nil {
		return -1
	}
	return bytes
}

// progress is that of a disk's transfer or merge; nil when neither is under way.
func (o observation) progress(d chain.Disk) *vmreplicav1.TransferProgress {
	progress := &vmreplicav1.TransferProgress{SizeBytes: d.SizeBytes}
	cursor := o.record.Cursor(d.ID)
	if cursor != nil {
		progress.CursorBytes = min(cursor.Segment*blockdiff.SegmentSize, d.SizeBytes)
		progress.ComparedBytes = progress.CursorBytes
	}
	if o.merge.Disk == d.ID {
		progress.MergedBytes, progress.MergeTotalBytes = o.merge.Merged, o.merge.Total
	}
	if cursor == nil && o.merge.Disk != d.ID {
		return nil
	}
	return progress
}

// lookInterval is how often the files are looked at for changes by others.
const lookInterval = time.Minute
