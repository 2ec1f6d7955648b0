package replica

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/agent-replica/merge"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestThePrimaryIsToldWhatStandsInTheWayOfAMerge(t *testing.T) {
	if got := mergeProblem(merge.Status{Disk: "root", Merged: 1, Total: 2}); got != nil {
		t.Errorf("a merge that goes on has the problem %v", got)
	}
	since := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	full := failure.New(failure.Exhausted, failure.ReasonStorageFull, "the storage is full").On("web01", "root").
		Try("Free some space.")
	want := &vmreplicav1.MergeProblem{
		Reason: failure.ReasonStorageFull, Message: "the storage is full", Remedy: "Free some space.", Disk: "root",
		Since: timestamppb.New(since), Final: true,
	}
	if got := mergeProblem(merge.Status{Problem: full, Since: since, Final: true}); !proto.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}
