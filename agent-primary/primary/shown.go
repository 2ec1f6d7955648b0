package primary

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/api"
	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// replicationToProto is a relationship as it is shown.
func replicationToProto(v relationship.View) *vmreplicav1.Replication {
	return &vmreplicav1.Replication{
		Name: v.Name, Uid: string(v.UID), Etag: strconv.FormatUint(v.Revision, 10), Labels: v.Labels,
		Spec: api.SpecToProto(v.Spec), Status: statusToProto(v),
	}
}

func statusToProto(v relationship.View) *vmreplicav1.ReplicationStatus {
	status := &vmreplicav1.ReplicationStatus{
		Mode:  vmreplicav1.ReplicationMode_REPLICATION_MODE_PRIMARY,
		State: api.StateToProto(v.State), Activity: api.ActivityToProto(v.Activity), Health: api.HealthToProto(v.Health()),
		ResyncCause: api.CauseToProto(v.Cause), ResyncEvidence: v.Evidence, Peer: v.ReplicaName, Term: v.Term,
		Lineage: string(v.Lineage), Cut: string(v.Cut),
		ProvenTime: api.TimeToProto(v.ProvenTime), ProvenRoot: v.ProvenRoot,
		LastSynchronizedTime: api.TimeToProto(v.LastSynchronized),
		Statistics: &vmreplicav1.ReplicationStatistics{
			StartTime:          api.TimeToProto(v.Statistics.StartTime),
			TransfersCompleted: v.Statistics.Completed, TransfersFailed: v.Statistics.Failed,
			NetworkFailures: v.Statistics.NetworkFailures,
			SentBytes:       v.Statistics.SentBytes, ReceivedBytes: v.Statistics.ReceivedBytes,
		},
		NextAttemptTime: api.TimeToProto(v.NextAttempt), CreateTime: api.TimeToProto(v.CreateTime),
	}
	trackedToProto(status, v)
	active := v.Record.Active()
	if active != nil && active.State == replication.ResyncScheduled && active.StartTime.After(time.Now()) {
		status.NextResyncTime = api.TimeToProto(active.StartTime)
	}
	if v.LastDuration > 0 {
		status.LastSynchronizedDuration = durationpb.New(v.LastDuration)
	}
	if v.Suspension != nil {
		status.SuspendReason = v.Suspension.Reason
	}
	if v.Record.Resync != nil {
		status.Resync = string(v.Record.Resync.ID)
	}
	for _, reason := range v.Reasons {
		status.HealthReasons = append(status.HealthReasons, api.HealthReasonToProto(reason))
	}
	for i, disk := range v.Disks {
		status.Disks = append(status.Disks, &vmreplicav1.DiskStatus{
			Id: disk.ID, Path: disk.Path, Format: api.FormatToProto(disk.Format), SizeBytes: disk.SizeBytes,
			LogicalSectorBytes: uint32(disk.LogicalSectorSize), AllocatedBytes: -1, Root: disk.Root,
			Progress: diskProgress(v, i),
		})
	}
	return status
}

// diskProgress is how far a disk's transfer or merge is; nil when none is under way.
func diskProgress(v relationship.View, index int) *vmreplicav1.TransferProgress {
	active := v.Record.Active()
	if active == nil || active.State == replication.ResyncScheduled {
		return nil
	}
	view := relationship.ResyncView{Resync: *active, Progress: v.Progress, Merge: v.Merge}
	return progressToProto(view, index)
}

// maxETA is the furthest end that is foretold, in seconds: 30 days.
const maxETA = 30 * 24 * 60 * 60

// progressToProto is how far a disk of a resync is.
func progressToProto(v relationship.ResyncView, index int) *vmreplicav1.TransferProgress {
	disk := v.Disks[index]
	var rate int64
	var stalled time.Time
	if index < len(v.Progress) {
		disk.Figures, rate = v.Progress[index].Figures, v.Progress[index].BytesPerSecond
		stalled = v.Progress[index].StalledSince
	}
	progress := figuresToProto(disk.SizeBytes, disk.Figures)
	left := disk.SizeBytes - disk.Figures.ComparedBytes
	if rate > 0 && left > 0 {
		progress.RateBytesPerSecond = rate
		if seconds := left / rate; seconds <= maxETA {
			progress.Eta = durationpb.New(time.Duration(seconds) * time.Second)
		}
	}
	if left > 0 { // a disk that is compared waits for the others
		progress.StalledSince = api.TimeToProto(stalled)
	}
	for _, merge := range v.Merge {
		if merge.ID == disk.ID {
			progress.MergedBytes, progress.MergeTotalBytes = merge.MergedBytes, merge.MergeTotalBytes
		}
	}
	return progress
}

func figuresToProto(size int64, f resync.Figures) *vmreplicav1.TransferProgress {
	return &vmreplicav1.TransferProgress{
		SizeBytes: size, ComparedBytes: min(f.ComparedBytes, size), DifferingBytes: f.BytesDiffering,
		WireSentBytes: f.WireBytesSent, WireReceivedBytes: f.WireBytesReceived, CursorBytes: min(f.DurableBytes, size),
	}
}

// resyncToProto is a resync as it is shown.
func resyncToProto(v relationship.ResyncView) *vmreplicav1.Resync {
	shown := &vmreplicav1.Resync{
		Id: string(v.ID), Vm: v.VM, Kind: api.ResyncKindToProto(v.Kind), State: api.ResyncStateToProto(v.State),
		Suspended: v.Suspended != nil, Result: v.Result, Reason: v.Reason, Cause: v.Cause,
		CreateTime: api.TimeToProto(v.CreateTime), StartTime: api.TimeToProto(v.StartTime),
		CommitTime: api.TimeToProto(v.CommitTime), EndTime: api.TimeToProto(v.EndTime),
		Reconnects: v.Reconnects, Restarts: v.Restarts, NextAttemptTime: api.TimeToProto(v.NextAttempt),
		Lineage: string(v.Lineage), Rounds: v.Rounds,
	}
	if v.Suspended != nil {
		shown.SuspendReason = v.Suspended.Reason
	}
	if v.Problem != nil {
		shown.Problem, shown.Remedy = v.Problem.Message, v.Problem.Remedy
	}
	if end := endOf(v.Resync); !end.IsZero() {
		shown.Duration = durationpb.New(max(0, end.Sub(v.StartTime)))
	}
	for i, disk := range v.Disks {
		shown.Disks = append(shown.Disks, resyncDiskToProto(v, disk, i))
	}
	return shown
}

// endOf is when a resync had nothing left to compare: its commit, or its end.
func endOf(s relationship.Resync) time.Time {
	if !s.CommitTime.IsZero() {
		return s.CommitTime
	}
	return s.EndTime
}

func resyncDiskToProto(v relationship.ResyncView, disk relationship.ResyncDisk, index int) *vmreplicav1.ResyncDisk {
	shown := &vmreplicav1.ResyncDisk{
		Id: disk.ID, Path: disk.Path, SizeBytes: disk.SizeBytes,
		BlocksCompared: disk.Figures.BlocksCompared(), BlocksDiffering: disk.Figures.BlocksDiffering,
		BytesDiffering: disk.Figures.BytesDiffering, WireBytesSent: disk.Figures.WireBytesSent,
		WireBytesReceived: disk.Figures.WireBytesReceived, SegmentsResent: disk.Figures.SegmentsResent,
		MarksOnly: disk.MarksOnly, CaughtUpBytes: disk.CaughtUpBytes,
	}
	if disk.Duration > 0 {
		shown.Duration = durationpb.New(disk.Duration)
	}
	if !disk.Root.IsZero() {
		shown.Root = disk.Root.String()
	}
	if !v.State.Ended() && v.State != replication.ResyncScheduled {
		shown.Progress = progressToProto(v, index)
	}
	return shown
}
