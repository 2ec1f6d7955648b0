package relationship_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// force starts a resync with the operator's word.
func (p *pair) force(a agent) {
	p.t.Helper()
	if _, err := a.Start(p.t.Context(), "web01", relationship.Start{Kind: replication.KindResync, Force: true}, state.Request{}); err != nil {
		p.t.Fatal(err)
	}
}

// wantForgotten checks that a resync failed because the replica does not know the VM, that nothing was prepared,
// and that only force leads on.
func (p *pair) wantForgotten(a agent) {
	p.t.Helper()
	view := p.want(a, replication.WaitingForStartResynchronize)
	if view.Cause != replication.CauseReplicaRecordMismatch || view.Evidence != "the replica has no record of this VM" {
		p.t.Fatalf("cause %v: %s", view.Cause, view.Evidence)
	}
	last := view.Resync
	if last.State != replication.ResyncFailed || last.Reason != failure.ReasonReplicaRecord || !strings.Contains(last.Result, "--force") ||
		!strings.Contains(view.Reasons[0].Remedy, "resync web01 --force") {
		p.t.Fatalf("resync %+v, %+v", last, view.Reasons[0])
	}
	if p.replica.exists || p.replica.prepares != 1 {
		p.t.Fatalf("the replica was prepared %d times", p.replica.prepares)
	}
}

func TestACopyThatWasTakenOverIsNotOverwritten(t *testing.T) {
	forget := func(r *replica) { r.exists, r.position = false, relationship.Position{} }
	ends := map[string]error{
		"the connection is lost": unreachable(),
		"the replica says so":    failure.New(failure.NotFound, failure.ReasonNotFound, "this replica holds no such VM"),
	}
	for name, end := range ends {
		for _, kind := range []replication.ResyncKind{replication.KindInitial, replication.KindResync} {
			t.Run(name+", "+kind.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, p *pair) {
					a := p.enabled()
					defer a.stop()
					if kind == replication.KindResync {
						p.begin(a, replication.KindInitial)
						p.settle()
					}
					commits := p.replica.commits
					p.during = func(context.Context, int) error { p.replica.set(forget); return end }
					p.begin(a, kind)
					time.Sleep(time.Minute)
					p.settle()
					p.wantForgotten(a)
					p.during = nil
					p.begin(a, replication.KindResync)
					p.settle()
					p.wantForgotten(a)
					if p.replica.commits != commits {
						t.Fatal("it was committed over somebody else's disk")
					}
					p.force(a)
					p.settle()
					p.want(a, replication.Replicating)
				})
			})
		}
	}
}

func TestForceIsUsedOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.images.set(func(i *images) {
			i.inUse = failure.New(failure.Precondition, failure.ReasonImageInUse, "a machine has it open")
		})
		p.replica.set(func(r *replica) { r.exists, r.position = false, relationship.Position{} })
		p.force(a)
		p.settle()
		if p.replica.prepares != 2 {
			t.Fatalf("prepared %d times", p.replica.prepares)
		}
		p.replica.set(func(r *replica) { r.exists = false })
		time.Sleep(time.Minute)
		p.settle()
		if view := p.want(a, replication.WaitingForStartResynchronize); p.replica.prepares != 2 || !view.NeedsForce {
			t.Fatalf("prepared %d times, %+v", p.replica.prepares, view.Resync)
		}
	})
}

func TestAMergeWhoseResultIsLostFails(t *testing.T) {
	losses := map[string]func(*replica){
		"no record":      func(r *replica) { r.exists = false },
		"another record": func(r *replica) { r.position.Lineage = replication.NewID() },
	}
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pair) {
				a := p.replicating()
				defer a.stop()
				p.replica.set(func(r *replica) { r.merges = 1 << 20 })
				p.begin(a, replication.KindResync)
				p.settle()
				p.replica.set(lose)
				p.settle()
				view := p.want(a, replication.WaitingForStartResynchronize)
				if view.Resync.State != replication.ResyncFailed || view.Resync.Reason != failure.ReasonReplicaRecord ||
					!strings.Contains(view.Resync.Result, "the replica lost it") || view.Cause != replication.CauseReplicaRecordMismatch {
					t.Fatalf("cause %v, resync %+v", view.Cause, view.Resync)
				}
				all, err := a.events.List("", 0, 0)
				if err != nil {
					t.Fatal(err)
				}
				finished := 0
				for _, e := range all {
					if e.Type == event.TypeResyncFinished {
						finished++
						if e.Details["result"] != event.ResultFailed {
							t.Fatalf("the event says %s", e.Message)
						}
					}
				}
				if finished != 1 || p.count(a, event.TypeOperationFailed) != 1 || p.count(a, event.TypeResyncRequired) != 1 {
					t.Fatalf("%d ends were told of: %+v", finished, all)
				}
			})
		})
	}
}

func TestATransferThatHasCommittedIsNotTakenUpAgain(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(_ context.Context, attempt int) error {
			if attempt != 2 {
				return nil
			}
			p.replica.set(func(r *replica) { // as a primary finds it that was restored from an older backup
				r.position = relationship.Position{
					Lineage: replication.NewID(), Cut: replication.NewID(), CommittedTransfer: r.position.Transfer,
				}
			})
			return unreachable()
		}
		p.begin(a, replication.KindResync)
		time.Sleep(time.Minute)
		p.settle()
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Resync.Reason != failure.ReasonCommitted || len(p.replica.aborts) != 0 {
			t.Fatalf("resync %+v, %d aborts", view.Resync, len(p.replica.aborts))
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
	})
}
