package relationship_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func TestAMergeThatIsStuckOnTheReplicaIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		since := time.Now().UTC()
		stuck := &relationship.MergeProblem{Since: since, Found: &failure.Error{
			Reason: failure.ReasonStorageFull, Disk: "root", Message: "no room at /storage", Remedy: "Free space there.",
		}}
		p.replica.merges, p.replica.mergeProblem = 1<<30, stuck
		a := p.replicating()
		defer a.stop()
		view := p.view(a)
		if view.Health() != replication.HealthWarning || !strings.Contains(reasonCodes(view), "STORAGE_FULL:2") {
			t.Fatalf("health %s", reasonCodes(view))
		}
		for _, reason := range view.Reasons {
			if reason.Code == failure.ReasonStorageFull && (!strings.Contains(reason.Message, "No room at /storage.") ||
				reason.Remedy != "Free space there." || reason.Disk != "root" || !reason.Since.Equal(since)) {
				t.Fatalf("%+v", reason)
			}
		}
		shown, err := a.Resync("web01", "")
		if err != nil || shown.State != replication.ResyncMerging || shown.Problem != stuck.Found || shown.Reason != failure.ReasonStorageFull {
			t.Fatalf("%+v, %v", shown, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := p.count(a, event.TypeMergeHindered); n != 1 {
			t.Fatalf("%d events tell of it", n)
		}

		final := *stuck
		final.Final = true
		p.replica.set(func(r *replica) { r.mergeProblem = &final })
		p.settle()
		if view := p.view(a); !strings.Contains(reasonCodes(view), "STORAGE_FULL:3") {
			t.Fatalf("a merge that is not tried again: %s", reasonCodes(view))
		}

		p.replica.set(func(r *replica) { r.mergeProblem = nil })
		p.settle()
		if view := p.want(a, replication.Replicating); view.Health() != replication.HealthNormal || view.Resync.Reason != "" ||
			p.count(a, event.TypeMergeRecovered) != 1 {
			t.Fatalf("health %s, %d recoveries, %+v", reasonCodes(view), p.count(a, event.TypeMergeRecovered), view.Resync)
		}
		p.replica.set(func(r *replica) { r.merges = 0 })
		p.settle()
		if view := p.view(a); view.Resync.State != replication.ResyncDone || view.Resync.Reason != "" {
			t.Fatalf("%+v", view.Resync)
		}
	})
}
