package relationship_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// bubble runs a test with simulated time.
func bubble(t *testing.T, run func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { run(t, newPair(t)) })
}

func TestFirstCopyResyncAndVerify(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		p.replica.merges = 3
		a := p.replicating()
		defer a.stop()
		view := p.view(a)
		if view.Health() != replication.HealthNormal || !strings.Contains(view.Reasons[0].Message, "not tracked") {
			t.Fatalf("health %s", reasonCodes(view))
		}
		last, err := a.Resync("web01", "")
		if err != nil || last.State != replication.ResyncDone || last.Disks[0].Figures.BlocksDiffering != 1 || last.Root == "" {
			t.Fatalf("resync %+v, %v", last, err)
		}
		p.begin(a, replication.KindResync)
		p.settle()
		second := p.want(a, replication.Replicating)
		if second.Lineage == view.Lineage || second.Cut == view.Cut {
			t.Fatal("a commit minted no new lineage and cut")
		}
		proven := second.ProvenTime
		p.begin(a, replication.KindVerify)
		p.settle()
		if verified := p.want(a, replication.Replicating); !verified.ProvenTime.After(proven) || verified.Resync.Result != "equal" ||
			verified.Lineage != second.Lineage {
			t.Fatalf("after a verify: %+v", verified.Resync)
		}
		if p.replica.commits != 2 || len(p.replica.aborts) != 1 || p.replica.position.Transfer != "" {
			t.Fatalf("%d commits, %d aborts, open %q", p.replica.commits, len(p.replica.aborts), p.replica.position.Transfer)
		}
		if p.count(a, event.TypeInitialStarted) != 1 || p.count(a, event.TypeInitialFinished) != 1 ||
			p.count(a, event.TypeResyncStarted) != 1 || p.count(a, event.TypeResyncFinished) != 1 || p.count(a, event.TypeVerifyFinished) != 1 {
			t.Fatal("not every start and end was told of")
		}
		if p.images.open != 0 {
			t.Fatal("an image is still open")
		}
	})
}

func TestVerifyThatFindsADifferenceIsACause(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.holds["root"] = 77 })
		p.begin(a, replication.KindVerify)
		p.settle()
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Cause != replication.CauseProofFailed || view.Health() != replication.HealthCritical ||
			view.Resync.State != replication.ResyncFailed || !strings.Contains(view.Resync.Result, "1 block,") {
			t.Fatalf("cause %v, health %s, resync %+v", view.Cause, reasonCodes(view), view.Resync)
		}
		_, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindVerify}, state.Request{})
		wantReason(t, err, failure.ReasonWrongState)
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestAnUnreachableReplicaIsRetriedForeverAndSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		p.replica.set(func(r *replica) { r.down = true })
		p.begin(a, replication.KindInitial)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		view := p.view(a)
		if view.Activity != replication.BackingOff || view.Attempts < 100 || view.Resync.Reason != failure.ReasonReplicaUnreachable {
			t.Fatalf("after two hours: %v, %d attempts, %+v", view.Activity, view.Attempts, view.Resync)
		}
		if wait := time.Until(view.NextAttempt); wait <= 0 || wait > time.Minute {
			t.Fatalf("the next attempt is in %v", wait)
		}
		if !strings.Contains(reasonCodes(view), "REPLICA_UNREACHABLE:3") {
			t.Fatalf("two hours without a replica are no alarm: %s", reasonCodes(view))
		}
		p.replica.set(func(r *replica) { r.down = false })
		time.Sleep(time.Minute)
		p.settle()
		p.want(a, replication.Replicating)
		if p.count(a, event.TypeResyncRecovered) != 1 || p.count(a, event.TypeResyncInterrupted) != 1 {
			t.Fatalf("%d recoveries and %d interruptions were told of", p.count(a, event.TypeResyncRecovered),
				p.count(a, event.TypeResyncInterrupted))
		}
	})
}

func TestAnImageInUseIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.images.set(func(i *images) {
			i.inUse = failure.New(failure.Precondition, failure.ReasonImageInUse, "qemu-system-x86 (pid 42) has it open")
		})
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.view(a)
		if view.Activity != replication.BackingOff || view.Health() != replication.HealthWarning ||
			!strings.Contains(view.Trouble.Message, "pid 42") || view.Trouble.Disk != "root" {
			t.Fatalf("%v, %s, %v", view.Activity, reasonCodes(view), view.Trouble)
		}
		p.images.set(func(i *images) { i.inUse = nil })
		time.Sleep(time.Minute)
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestAMissingImageFailsAndTheOldBaselineStands(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.images.set(func(i *images) { i.missing = true })
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.want(a, replication.Replicating) // nothing was begun, so nothing is void
		if view.Resync.State != replication.ResyncFailed || view.Resync.Reason != failure.ReasonImageMissing {
			t.Fatalf("resync %+v", view.Resync)
		}
	})
}

func TestAChangedImageRestartsThePassAndKeepsTheTransfer(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(_ context.Context, attempt int) error {
			if attempt == 2 || attempt == 3 {
				p.images.write(rootPath)
			}
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.want(a, replication.Replicating)
		if view.Resync.Restarts != 2 || p.count(a, event.TypePassRestarted) != 2 {
			t.Fatalf("resync %+v", view.Resync)
		}
		opens := p.replica.opens
		if len(opens) != 4 || opens[1].Restart || !opens[2].Restart || !opens[3].Restart ||
			opens[1].Transfer != opens[3].Transfer {
			t.Fatalf("streams %+v", opens)
		}
	})
}

func TestAnImageThatKeepsChangingSuspends(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(context.Context, int) error { p.images.write(rootPath); return nil }
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.want(a, replication.ResynchronizeSuspended)
		if view.Suspension.Code != failure.ReasonImageChanged || !strings.Contains(reasonCodes(view), "IMAGE_CHANGED:3") ||
			view.Resync.Restarts != 3 {
			t.Fatalf("%+v, %s", view.Suspension, reasonCodes(view))
		}
		p.during = nil
		if _, err := a.Resume(t.Context(), "web01", state.Request{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestSuspendKeepsThePositionAndResumeGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(ctx context.Context, attempt int) error {
			if attempt == 2 {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Resynchronizing)
		if _, err := a.Suspend(t.Context(), "web01", "backup window", state.Request{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		view := p.want(a, replication.ResynchronizeSuspended)
		if p.images.open != 0 || view.Activity != replication.Idle || view.Suspension.Reason != "backup window" {
			t.Fatalf("while suspended: %d open images, %v", p.images.open, view.Activity)
		}
		if _, err := a.Resume(t.Context(), "web01", state.Request{}); err != nil {
			t.Fatal(err)
		}
		p.settle()
		p.want(a, replication.Replicating)
		if opens := p.replica.opens; opens[1].Transfer != opens[2].Transfer || opens[2].Restart {
			t.Fatalf("the position was not kept: %+v", opens)
		}
	})
}

func TestCancelBeforeTheCommitLeavesWhatWasThere(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		before, held := p.view(a), p.replica.holds["root"]
		p.during = func(ctx context.Context, attempt int) error {
			if attempt == 2 {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		started := p.begin(a, replication.KindResync)
		p.settle()
		cancelled, err := a.Cancel(t.Context(), "web01", "", state.Request{})
		if err != nil || cancelled.State != replication.ResyncCancelled || cancelled.ID != started.ID {
			t.Fatalf("%+v, %v", cancelled, err)
		}
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Cause != replication.CauseResyncCancelled || view.Lineage != before.Lineage || p.replica.holds["root"] != held {
			t.Fatalf("cause %v", view.Cause)
		}
		if p.replica.position.Transfer != "" || len(p.replica.aborts) != 1 {
			t.Fatal("the replica still has the transfer")
		}
		if !strings.Contains(view.Reasons[0].Message, "Resynchronization is required for the virtual machine web01. Resume replication") {
			t.Fatalf("%q", view.Reasons[0].Message)
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestCancelOfTheFirstCopyGoesBackToReady(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		defer a.stop()
		p.during = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
		p.begin(a, replication.KindInitial)
		p.settle()
		p.want(a, replication.InitialReplicationInProgress)
		if _, err := a.Cancel(t.Context(), "web01", "", state.Request{}); err != nil {
			t.Fatal(err)
		}
		p.want(a, replication.ReadyForInitialReplication)
	})
}

func TestCancelAfterTheCommitIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.merges = 1 << 20 })
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.want(a, replication.Replicating)
		if view.Activity != replication.Merging || view.Resync.State != replication.ResyncMerging {
			t.Fatalf("%v, %v", view.Activity, view.Resync.State)
		}
		_, err := a.Cancel(t.Context(), "web01", "", state.Request{})
		if found := wantReason(t, err, failure.ReasonCommitted); found.Class != failure.Precondition {
			t.Fatalf("class %v", found.Class)
		}
		_, err = a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync}, state.Request{})
		if found := wantReason(t, err, failure.ReasonResyncRunning); !strings.Contains(found.Message, string(view.Resync.ID)) {
			t.Fatalf("it does not name the one that runs: %v", found)
		}
	})
}

func TestALostCommitAnswerIsAdopted(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.loseReply = true })
		p.begin(a, replication.KindResync)
		time.Sleep(time.Minute)
		p.settle()
		p.want(a, replication.Replicating)
		if p.replica.commits != 2 || p.tried() != 2 {
			t.Fatalf("%d commits after %d attempts", p.replica.commits, p.tried())
		}
	})
}

func TestACommitThatNeverArrivedIsSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(context.Context, int) error {
			p.replica.set(func(r *replica) { r.refuse = unreachable() })
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		if view := p.want(a, replication.Resynchronizing); view.Resync.State != replication.ResyncCommitting {
			t.Fatalf("%+v", view.Resync)
		}
		_, err := a.Cancel(t.Context(), "web01", "", state.Request{})
		wantReason(t, err, failure.ReasonCommitted)
		p.replica.set(func(r *replica) { r.refuse = nil })
		time.Sleep(time.Minute)
		p.settle()
		p.want(a, replication.Replicating)
		if p.tried() != 2 {
			t.Fatalf("everything was compared again: %d attempts", p.tried())
		}
	})
}

func TestACommitThatIsRefusedForGoodFails(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) {
			r.refuse = failure.New(failure.Corrupt, failure.ReasonProofFailed, "another root")
		})
		p.begin(a, replication.KindResync)
		p.settle()
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Cause != replication.CauseProofFailed || view.Resync.State != replication.ResyncFailed {
			t.Fatalf("%v, %+v", view.Cause, view.Resync)
		}
	})
}

func TestAReplicaThatIsNeitherHereNorThereNeedsAResync(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.during = func(context.Context, int) error {
			p.replica.set(func(r *replica) { r.refuse = unreachable() })
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		other := replication.NewID()
		p.replica.set(func(r *replica) { r.refuse = nil; r.position.Lineage = other })
		p.during = nil
		time.Sleep(time.Minute)
		p.settle()
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Cause != replication.CauseReplicaRecordMismatch || !strings.Contains(view.Evidence, other.Short()) ||
			!strings.Contains(view.Evidence, view.Lineage.Short()) {
			t.Fatalf("%v: %s", view.Cause, view.Evidence)
		}
		p.begin(a, replication.KindResync)
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestTheImagesAreWatchedAtRest(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.images.set(func(i *images) { i.missing = true })
		time.Sleep(time.Minute)
		synctest.Wait()
		if view := p.want(a, replication.Replicating); view.Health() != replication.HealthWarning {
			t.Fatalf("a missing image: %s", reasonCodes(view))
		}
		p.images.set(func(i *images) { i.missing = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if view := p.want(a, replication.Replicating); view.Health() != replication.HealthNormal {
			t.Fatalf("an image that is back: %s", reasonCodes(view))
		}
		p.images.write(rootPath)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		view := p.want(a, replication.WaitingForStartResynchronize)
		if view.Cause != replication.CauseImageModified || !strings.Contains(view.Evidence, rootPath) ||
			view.Health() != replication.HealthCritical {
			t.Fatalf("%v: %s", view.Cause, view.Evidence)
		}
	})
}

func TestTheReplicaIsAskedAtRest(t *testing.T) {
	cases := map[string]struct {
		change func(*replica)
		want   string
	}{
		"its files changed":   {func(r *replica) { r.doubt = "its size changed" }, "its size changed"},
		"its record is gone":  {func(r *replica) { r.exists = false }, "no record of this VM"},
		"its record is older": {func(r *replica) { r.position.Lineage = "0123456789abcdef0123456789abcdef" }, "01234567"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pair) {
				a := p.replicating()
				defer a.stop()
				p.replica.set(test.change)
				time.Sleep(6 * time.Minute)
				synctest.Wait()
				view := p.want(a, replication.WaitingForStartResynchronize)
				if view.Cause != replication.CauseReplicaRecordMismatch || !strings.Contains(view.Evidence, test.want) {
					t.Fatalf("%v: %s", view.Cause, view.Evidence)
				}
				p.replica.set(func(r *replica) { r.doubt = "" })
				p.force(a)
				p.settle()
				p.want(a, replication.Replicating)
			})
		})
	}
}

func TestNoMoreTransferThanMay(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		p.slots.SetLimit(1)
		a := p.enabled()
		defer a.stop()
		release, err := p.slots.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.begin(a, replication.KindInitial)
		p.settle()
		if view := p.view(a); !view.Waiting || !strings.Contains(reasonCodes(view), relationship.CodeWaiting) {
			t.Fatalf("waiting is not seen: %s", reasonCodes(view))
		}
		release()
		p.settle()
		p.want(a, replication.Replicating)
	})
}

func TestAStartTimeIsKeptAcrossARestart(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		at := time.Now().Add(6 * time.Hour)
		view, err := a.Resynchronize(t.Context(), "web01", at, state.Request{})
		if err != nil || view.State != replication.Replicating || view.Resync.State != replication.ResyncScheduled {
			t.Fatalf("%+v, %v", view.Resync, err)
		}
		a.stop()
		a = p.start()
		defer a.stop()
		time.Sleep(5 * time.Hour)
		if p.tried() != 1 {
			t.Fatal("it began early")
		}
		time.Sleep(time.Hour)
		p.settle()
		if view := p.want(a, replication.Replicating); view.Resync.State != replication.ResyncDone || p.tried() != 2 {
			t.Fatalf("%+v", view.Resync)
		}
	})
}

func TestARepeatedRequestIsTheSameResync(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.enabled()
		request := state.Request{Caller: "operator", ID: "42", Method: "StartResync"}
		first, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindInitial}, request)
		if err != nil {
			t.Fatal(err)
		}
		p.settle()
		a.stop()
		a = p.start()
		defer a.stop()
		again, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindInitial}, request)
		if err != nil || again.ID != first.ID || again.State != replication.ResyncDone {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

func TestAFailedResyncsTransferIsTakenUp(t *testing.T) {
	for _, restart := range []bool{false, true} {
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
			p.want(a, replication.WaitingForStartResynchronize)
			if _, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync, Restart: restart}, state.Request{}); err != nil {
				t.Fatal(err)
			}
			p.settle()
			p.want(a, replication.Replicating)
			opens := p.replica.opens
			if same := opens[1].Transfer == opens[2].Transfer; same == restart {
				t.Fatalf("restart %t, the same transfer %t", restart, same)
			}
			if aborted := len(p.replica.aborts) == 1; aborted != restart {
				t.Fatalf("restart %t, %d aborts", restart, len(p.replica.aborts))
			}
		})
	}
}

func TestAfterAStartTheFirstCheckLooksAtOnce(t *testing.T) {
	for _, changed := range []bool{false, true} {
		bubble(t, func(t *testing.T, p *pair) {
			a := p.replicating()
			a.stop()
			if changed {
				p.images.write(rootPath)
			}
			p.images.set(func(i *images) { i.hold = make(chan struct{}) })
			a = p.start()
			defer a.stop()
			synctest.Wait()
			view := p.view(a)
			if view.Health() != replication.HealthWarning || !strings.Contains(reasonCodes(view), relationship.CodeNotLookedAt) {
				t.Fatalf("before anybody has looked: %s", reasonCodes(view))
			}
			close(p.images.hold) // no time passes from here
			synctest.Wait()
			view = p.view(a)
			if !changed && view.Health() != replication.HealthNormal || changed && view.Cause != replication.CauseImageModified {
				t.Fatalf("changed %t, after the first check: %v %s", changed, view.Cause, reasonCodes(view))
			}
		})
	}
}

func TestARefusalSaysWhatTheOtherResyncDoes(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		refused := func(want string) {
			t.Helper()
			_, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync}, state.Request{})
			if found := wantReason(t, err, failure.ReasonResyncRunning); !strings.Contains(found.Message, want) {
				t.Fatalf("%q lacks %q", found.Message, want)
			}
		}
		at := time.Now().Add(time.Hour).UTC()
		if _, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync, Time: at}, state.Request{}); err != nil {
			t.Fatal(err)
		}
		refused("is scheduled for " + at.Format(time.RFC3339) + " already")
		p.images.set(func(i *images) {
			i.inUse = failure.New(failure.Precondition, failure.ReasonImageInUse, "qemu-system-x86 (pid 42) has it open")
		})
		time.Sleep(time.Hour)
		p.settle()
		refused("waits to begin (IMAGE_IN_USE) already")
	})
}
