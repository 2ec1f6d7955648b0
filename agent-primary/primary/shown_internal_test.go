package primary

import (
	"testing"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func TestOnlyAnEndThatCanBeToldIsForetold(t *testing.T) {
	const size = 64 << 40
	stalled := time.Unix(1_700_000_000, 0)
	show := func(rate, compared int64) relationship.ResyncView {
		return relationship.ResyncView{
			Resync: relationship.Resync{State: replication.ResyncComparing, Disks: []relationship.ResyncDisk{{ID: "root", SizeBytes: size}}},
			Progress: []relationship.DiskProgress{{
				Figures: resync.Figures{ComparedBytes: compared}, BytesPerSecond: rate, StalledSince: stalled,
			}},
		}
	}
	if p := progressToProto(show(1<<30, 0), 0); p.GetEta().AsDuration() != 65536*time.Second {
		t.Errorf("%v", p)
	}
	if p := progressToProto(show(1000, 0), 0); p.GetEta() != nil || p.GetRateBytesPerSecond() != 1000 {
		t.Errorf("two thousand years are foretold: %v", p)
	}
	if p := progressToProto(show(0, 1), 0); !p.GetStalledSince().AsTime().Equal(stalled) {
		t.Errorf("%v", p)
	}
	if p := progressToProto(show(0, size), 0); p.GetStalledSince() != nil {
		t.Errorf("a disk that is compared is stalled: %v", p)
	}
}

func TestAResyncSaysWhatItWaitsFor(t *testing.T) {
	view := relationship.ResyncView{Problem: failure.New(failure.Exhausted, failure.ReasonStorageFull, "no room").Try("Free space.")}
	if shown := resyncToProto(view); shown.GetProblem() != "no room" || shown.GetRemedy() != "Free space." {
		t.Fatalf("%v", shown)
	}
}
