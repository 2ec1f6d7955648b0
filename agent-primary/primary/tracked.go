package primary

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/api"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// trackedToProto shows what is tracked of a relationship, and its cycles.
func trackedToProto(status *vmreplicav1.ReplicationStatus, v relationship.View) {
	status.Tracked, status.Attached = v.Tracked(), v.Attached
	status.PendingBytes, status.HrlAccumulationPercent = v.Accumulated, v.AccumulationPercent()
	status.NextCycleTime = api.TimeToProto(v.NextCycle)
	status.NextResyncWindowTime = api.TimeToProto(v.NextResyncWindow())
	if v.InStep.After(v.LastSynchronized) {
		status.LastSynchronizedTime = api.TimeToProto(v.InStep)
	}
	if last := v.LastCycle; last != nil {
		status.LastCycle = &vmreplicav1.Cycle{
			Cut: string(last.Cut), CutTime: api.TimeToProto(last.CutTime), EndTime: api.TimeToProto(last.End),
			Duration: durationpb.New(last.Duration()), SentBytes: last.SentBytes, WireBytes: last.WireBytes,
		}
	}
	s, shown := v.Statistics, status.GetStatistics()
	shown.CyclesCompleted, shown.CyclesMissed, shown.CyclesFailed = s.CyclesCompleted, s.CyclesMissed, s.CyclesFailed
	shown.ReplicatedBytes, shown.MaxCycleBytes = s.ReplicatedBytes, s.MaxCycleBytes
	if s.CyclesCompleted > 0 {
		shown.AverageCycleDuration = durationpb.New(s.CycleDuration / time.Duration(s.CyclesCompleted))
		shown.MaxCycleDuration = durationpb.New(s.MaxCycleDuration)
	}
}
