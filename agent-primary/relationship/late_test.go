package relationship_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

func TestAWorkerThatWasToldToStopChangesNothing(t *testing.T) {
	for range 20 { // whether its word or its stop is heard first is chance
		bubble(t, func(t *testing.T, p *pair) {
			a := p.replicating()
			defer a.stop()
			p.deaf = true
			p.during = func(ctx context.Context, attempt int) error {
				if attempt == 2 {
					<-ctx.Done()
				}
				return nil
			}
			p.begin(a, replication.KindResync)
			p.settle()
			if _, err := a.Suspend(t.Context(), "web01", "", state.Request{}); err != nil {
				t.Fatal(err)
			}
			p.settle()
			view := p.want(a, replication.ResynchronizeSuspended)
			if view.Resync.State != replication.ResyncComparing || p.replica.commits != 1 {
				t.Fatalf("a suspended resync went on: %v, %d commits", view.Resync.State, p.replica.commits)
			}
		})
	}
}

func TestATransferThatIsTakenUpBeginsAgainIfTheImageChanged(t *testing.T) {
	for _, changed := range []bool{false, true} {
		bubble(t, func(t *testing.T, p *pair) {
			a := p.replicating()
			defer a.stop()
			p.during = func(_ context.Context, attempt int) error {
				if attempt == 2 {
					return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "I/O error")
				}
				return nil
			}
			p.begin(a, replication.KindResync)
			p.settle()
			if changed {
				p.images.write(rootPath)
			}
			p.begin(a, replication.KindResync)
			p.settle()
			p.want(a, replication.Replicating)
			if opens := p.replica.opens; opens[2].Restart != changed || opens[1].Transfer != opens[2].Transfer {
				t.Fatalf("changed %t: %+v", changed, opens[1:])
			}
		})
	}
}

func TestProgressBeginsTheBackoffAnew(t *testing.T) {
	for _, progress := range []bool{false, true} {
		bubble(t, func(t *testing.T, p *pair) {
			a := p.enabled()
			defer a.stop()
			p.during = func(context.Context, int) error { return unreachable() }
			var durable int64
			p.moved = func(pass *resync.Progress) {
				if progress {
					durable += 4096
				}
				pass.Restore(resync.Figures{DurableBytes: durable})
			}
			p.begin(a, replication.KindInitial)
			time.Sleep(3 * time.Minute)
			attempts := p.tried()
			if progress && attempts < 180 || !progress && attempts > 30 {
				t.Fatalf("progress %t: %d attempts in three minutes", progress, attempts)
			}
		})
	}
}

func TestCancelOfAScheduledResyncVoidsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		started, err := a.Start(t.Context(), "web01",
			relationship.Start{Kind: replication.KindResync, Time: time.Now().Add(time.Hour)}, state.Request{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Cancel(t.Context(), "web01", replication.NewID(), state.Request{})
		wantReason(t, err, failure.ReasonWrongState)
		if _, err := a.Cancel(t.Context(), "web01", started.ID, state.Request{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		p.want(a, replication.Replicating)
		if p.tried() != 1 {
			t.Fatal("a cancelled resync began")
		}
	})
}

func TestAPassThatBeganAgainGoesOnAfterALostConnection(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(_ context.Context, attempt int) error {
			switch attempt {
			case 2:
				p.images.write(rootPath)
			case 3:
				return unreachable()
			}
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
		if opens := p.replica.opens; len(opens) != 4 || !opens[2].Restart || opens[3].Restart {
			t.Fatalf("streams %+v", opens[1:])
		}
	})
}

func TestANewAddressIsTriedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.down = true })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if view := p.want(a, replication.Replicating); view.Trouble == nil || view.Health() != replication.HealthWarning {
			t.Fatalf("nobody notices that the replica is away: %s", reasonCodes(view))
		}
		p.replica.set(func(r *replica) { r.down = false })
		if _, err := a.Update(t.Context(), "web01", relationship.Update{ReplicaAddress: "new:7443"}, state.Request{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if view := p.want(a, replication.Replicating); view.Trouble != nil {
			t.Fatalf("the old address's trouble stays: %v", view.Trouble)
		}
	})
}

func TestWhatIsProvenIsTheCutsTime(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		var cut time.Time
		p.during = func(_ context.Context, attempt int) error {
			time.Sleep(time.Hour)
			switch attempt {
			case 2:
				p.images.write(rootPath)
				cut = time.Now()
			case 3:
				p.replica.set(func(r *replica) { r.refuse = unreachable() })
			}
			return nil
		}
		p.begin(a, replication.KindResync)
		time.Sleep(50 * time.Hour)
		p.replica.set(func(r *replica) { r.refuse = nil })
		time.Sleep(2 * time.Minute)
		p.settle()
		view := p.want(a, replication.Replicating)
		if !view.ProvenTime.Equal(cut) || view.Resync.CommitTime.Sub(cut) < 48*time.Hour || !view.LastSynchronized.Equal(view.Resync.CommitTime) {
			t.Fatalf("cut at %v, proven %v, committed %v", cut, view.ProvenTime, view.Resync.CommitTime)
		}
		told := p.last(a, event.TypeResyncCommitted)
		if !strings.Contains(told.Message, "as it was at "+cut.UTC().Format(time.RFC3339)) {
			t.Fatalf("cut at %v: %s", cut, told.Message)
		}
	})
}

func TestEventsCountAndRound(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(_ context.Context, attempt int) error {
			time.Sleep(1149350777 * time.Nanosecond)
			if attempt == 2 {
				p.images.write(rootPath)
			}
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
		for typ, want := range map[string]string{
			event.TypeCreated: " for 1 disk.", event.TypeResyncFinished: " after 2.3s:", event.TypePassRestarted: "again: the image ",
		} {
			if told := p.last(a, typ); !strings.Contains(told.Message, want) {
				t.Errorf("%q lacks %q", told.Message, want)
			}
		}
	})
}
