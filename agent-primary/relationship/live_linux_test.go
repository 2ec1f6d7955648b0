package relationship_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/failure"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// scribble changes a disk at every alignment: writes, zeros and trims.
func scribble(t *testing.T, exports []nbd.Export, seed byte) {
	t.Helper()
	for i, export := range exports {
		for _, at := range []struct{ off, n int64 }{
			{0, 1}, {511, 2}, {4095, 2}, {4096, 4096}, {65535, 65538}, {liveSize - 1, 1}, {1 << 20, 300}, {2<<20 + 7, 70_000},
		} {
			if _, err := export.WriteAt(bytes.Repeat([]byte{seed + byte(i)}, int(at.n)), at.off); err != nil {
				t.Fatal(err)
			}
		}
		if err := export.Zero(300_001, 9000+int64(seed), nbd.ZeroOptions{KeepSpace: seed%2 == 0}); err != nil {
			t.Fatal(err)
		}
		if err := export.Trim(700_000+int64(seed), 50_000); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAWriteInEveryState writes in each state of a relationship: what is written is shipped, or is marked and required to
// be compared. A state without a row fails.
func TestAWriteInEveryState(t *testing.T) {
	resynchronize := func(s *site, a agent) {
		if _, err := a.Resynchronize(t.Context(), "web01", time.Time{}, state.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	rows := map[replication.State]struct {
		reach func(s *site, a agent) func()
		leave func(s *site, a agent)
	}{
		replication.ReadyForInitialReplication: {nil, func(s *site, a agent) {
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
		}},
		replication.InitialReplicationInProgress: {func(s *site, a agent) func() {
			held := make(chan struct{})
			s.duringCut = func() { <-held }
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			return func() { close(held) }
		}, func(*site, agent) {}},
		replication.Replicating: {func(s *site, a agent) func() {
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			return nil
		}, func(*site, agent) {}},
		replication.Suspended: {func(s *site, a agent) func() {
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			s.inStep(a)
			if _, err := a.Suspend(t.Context(), "web01", "night", state.Request{}); err != nil {
				t.Fatal(err)
			}
			return nil
		}, func(s *site, a agent) {
			if _, err := a.Resume(t.Context(), "web01", state.Request{}); err != nil {
				t.Fatal(err)
			}
		}},
		replication.WaitingForStartResynchronize: {func(s *site, a agent) func() {
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			s.inStep(a)
			s.replica.mu.Lock()
			s.replica.position.Cut = replication.NewID()
			s.replica.mu.Unlock()
			return nil
		}, func(s *site, a agent) { s.startResync(a, relationship.Start{Kind: replication.KindResync}) }},
		replication.Resynchronizing: {func(s *site, a agent) func() {
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			s.inStep(a)
			held := make(chan struct{})
			s.duringCut = func() { <-held }
			resynchronize(s, a)
			return func() { close(held) }
		}, func(*site, agent) {}},
	}
	for wanted := replication.ReadyForInitialReplication; wanted <= replication.FailedOver; wanted++ {
		if elsewhere[wanted] != "" {
			continue
		}
		t.Run(wanted.String(), func(t *testing.T) {
			row, known := rows[wanted]
			if !known {
				t.Fatal("no row says what becomes of a write in this state")
			}
			s := newSite(t, "root.img", "data.img")
			a := s.enabled()
			exports := s.attach(a)
			defer detach(a, exports)
			release := func() {}
			if row.reach != nil {
				if r := row.reach(s, a); r != nil {
					release = r
				}
			}
			s.await(a, wanted.String(), func(v relationship.View) bool { return v.State == wanted })
			scribble(t, exports, 40)
			release()
			row.leave(s, a)
			s.inStep(a)
			scribble(t, exports, 90)
			s.inStep(a)
		})
	}
}

// elsewhere are states that no attached machine of a primary is in, or that another test writes in.
var elsewhere = map[replication.State]string{
	replication.ResynchronizeSuspended: "TestASuspendedResyncKeepsItsMarks",
	replication.Error:                  "not prepared: no disk can be attached",
	replication.RecoveryInProgress:     "the replica's",
	replication.FailedOver:             "TestAFailedOverReplicaEndsIt",
}

func TestASuspendedResyncKeepsItsMarks(t *testing.T) {
	s := newSite(t, "root.img")
	a, exports := s.replicating()
	defer detach(a, exports)
	held := make(chan struct{})
	s.duringCut = func() { <-held }
	s.startResync(a, relationship.Start{Kind: replication.KindResync, Force: true})
	s.await(a, "catching up", func(v relationship.View) bool {
		return v.Record.Active() != nil && v.Record.Active().State == replication.ResyncCatchingUp
	})
	if _, err := a.Suspend(t.Context(), "web01", "", state.Request{}); err != nil {
		t.Fatal(err)
	}
	close(held)
	s.await(a, "the suspension", func(v relationship.View) bool { return v.State == replication.ResynchronizeSuspended })
	scribble(t, exports, 33)
	if _, err := a.Resume(t.Context(), "web01", state.Request{}); err != nil {
		t.Fatal(err)
	}
	s.inStep(a)
}

func TestAFailedOverReplicaEndsIt(t *testing.T) {
	s := newSite(t, "root.img")
	a, exports := s.replicating()
	defer detach(a, exports)
	s.replica.mu.Lock()
	s.replica.refuse = failure.New(failure.Precondition, failure.ReasonFailedOver, "it was failed over to at noon")
	s.replica.mu.Unlock()
	scribble(t, exports, 5)
	view := s.await(a, "the refusal", func(v relationship.View) bool { return v.State == replication.FailedOver })
	if view.Health() != replication.HealthCritical {
		t.Errorf("the health is %v", view.Health())
	}
	scribble(t, exports, 6) // the machine runs on
	wantReason(t, func() error {
		_, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync, Force: true}, state.Request{})
		return err
	}(), failure.ReasonWrongState)
}

// TestALostAnswerIsAdopted loses the answer of a cycle's commit: the replica's record tells, and no resync is required.
func TestALostAnswerIsAdopted(t *testing.T) {
	s := newSite(t, "root.img")
	a, exports := s.replicating()
	defer detach(a, exports)
	lineage := s.inStep(a).Lineage
	s.replica.mu.Lock()
	s.replica.loseReply = true
	s.replica.mu.Unlock()
	scribble(t, exports, 12)
	view := s.inStep(a)
	if view.Lineage != lineage || view.Statistics.CyclesCompleted < 2 {
		t.Errorf("the lineage is %s and was %s after %d cycles", view.Lineage, lineage, view.Statistics.CyclesCompleted)
	}
}

// TestAnUnreachableReplicaOnlyAccumulates tells connection problems from tracking problems.
func TestAChangedIntervalHoldsAtOnce(t *testing.T) {
	s := newSite(t, "root.img")
	s.interval = 24 * time.Hour
	a, exports := s.replicating()
	defer detach(a, exports)
	s.await(a, "the next cycle", func(v relationship.View) bool { return v.NextCycle.After(time.Now()) })
	scribble(t, exports, 40)
	for _, interval := range []time.Duration{30 * time.Millisecond, 24 * time.Hour, 50 * time.Millisecond} {
		if _, err := a.Update(t.Context(), "web01", relationship.Update{Interval: &interval}, state.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	s.inStep(a)
}

func TestAnUnreachableReplicaOnlyAccumulates(t *testing.T) {
	s := newSite(t, "root.img", "data.img")
	a, exports := s.replicating()
	defer detach(a, exports)
	s.replica.cutOff(true)
	scribble(t, exports, 20)
	s.await(a, "the trouble", func(v relationship.View) bool {
		return v.Trouble != nil && v.Trouble.Class == failure.Unreachable && v.State == replication.Replicating && v.Accumulated > 0
	})
	s.replica.cutOff(false)
	s.inStep(a)
}

// TestTooMuchAccumulated requires a resync at the limit, and not before.
func TestTooMuchAccumulated(t *testing.T) {
	s := newSite(t, "root.img")
	s.limit = 50
	a, exports := s.replicating()
	defer detach(a, exports)
	s.replica.cutOff(true)
	if _, err := exports[0].WriteAt(make([]byte, liveSize/4), 0); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	s.await(a, "less than the limit", func(v relationship.View) bool { return v.State == replication.Replicating })
	if _, err := exports[0].WriteAt(make([]byte, liveSize/2), liveSize/4); err != nil {
		t.Fatal(err)
	}
	view := s.await(a, "the limit", func(v relationship.View) bool { return v.Cause == replication.CauseHRLOverLimit })
	if view.Evidence == "" {
		t.Error("no evidence is given")
	}
	s.replica.cutOff(false)
	s.startResync(a, relationship.Start{Kind: replication.KindResync})
	s.inStep(a)
}

// TestARestartKeepsTheMarks stops the agent with changes that were not sent, attached and detached: the next one sends
// them and compares nothing.
func TestARestartKeepsTheMarks(t *testing.T) {
	s := newSite(t, "root.img", "data.img")
	a, exports := s.replicating()
	lineage := s.inStep(a).Lineage
	s.replica.cutOff(true)
	scribble(t, exports, 60)
	detach(a, exports)
	a.stop()
	s.replica.cutOff(false)
	a = s.start()
	if view := s.inStep(a); view.Lineage != lineage || view.Attached {
		t.Errorf("the lineage is %s and was %s; attached %t", view.Lineage, lineage, view.Attached)
	}
}

// TestAnImageWrittenWhileDetachedIsNoticed writes past the agent.
func TestAnImageWrittenWhileDetachedIsNoticed(t *testing.T) {
	s := newSite(t, "root.img", "data.img")
	a, exports := s.replicating()
	s.inStep(a)
	detach(a, exports)
	s.await(a, "the closing", func(v relationship.View) bool { return !v.Open && v.Accumulated == 0 })
	file, err := os.OpenFile(s.path("data.img"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("past the agent"), 8192); err != nil {
		t.Fatal(err)
	}
	file.Close()
	view := s.await(a, "the notice", func(v relationship.View) bool { return v.Cause != replication.CauseNone })
	if view.Cause != replication.CauseImageModified || view.CauseDisk != "data.img" {
		t.Errorf("the cause is %v of %s: %s", view.Cause, view.CauseDisk, view.Evidence)
	}
	s.startResync(a, relationship.Start{Kind: replication.KindResync})
	s.inStep(a)
	s.replica.mu.Lock()
	defer s.replica.mu.Unlock()
	if len(s.replica.marksOnly) != 1 || s.replica.marksOnly[0] != "root.img" {
		t.Errorf("only the marks were sent of %v", s.replica.marksOnly)
	}
}

// TestTheFirstAttachFollowsTheProof attaches a VM that was copied while it was off: nothing is compared again, and what
// changed since the proof would be noticed.
func TestTheFirstAttachFollowsTheProof(t *testing.T) {
	for name, changed := range map[string]bool{"unchanged": false, "changed before": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "root.img", "data.img")
			a := s.enabled()
			s.startResync(a, relationship.Start{Kind: replication.KindInitial})
			s.await(a, "the first copy", func(v relationship.View) bool {
				return v.State == replication.Replicating && v.Record.Active() == nil
			})
			if changed {
				a.stop()
				if err := os.WriteFile(s.path("root.img"), make([]byte, liveSize), 0o600); err != nil {
					t.Fatal(err)
				}
				a = s.start()
			}
			exports := s.attach(a)
			defer detach(a, exports)
			scribble(t, exports, 71)
			if changed {
				s.await(a, "the notice", func(v relationship.View) bool {
					return v.Cause == replication.CauseImageModified && v.Record.Active() == nil
				})
				s.startResync(a, relationship.Start{Kind: replication.KindResync})
			}
			s.inStep(a)
			s.replica.mu.Lock()
			defer s.replica.mu.Unlock()
			compared := 0
			for _, kind := range s.replica.kinds {
				if kind != replication.KindDelta {
					compared++
				}
			}
			if want := map[bool]int{false: 1, true: 2}[changed]; compared != want {
				t.Errorf("%d transfers compared, want %d: %v", compared, want, s.replica.kinds)
			}
		})
	}
}

// TestARequiredResyncStartsByItself follows the policy, and never where the primary may be the wrong disk.
func TestARequiredResyncStartsByItself(t *testing.T) {
	s := newSite(t, "root.img")
	s.autoMode, s.limit = replication.AutoResyncAlways, 50
	a, exports := s.replicating()
	defer detach(a, exports)
	s.replica.cutOff(true)
	if _, err := exports[0].WriteAt(make([]byte, liveSize*3/4), 0); err != nil {
		t.Fatal(err)
	}
	s.await(a, "the resync", func(v relationship.View) bool { return v.Record.Active() != nil && v.Record.Active().Auto })
	s.replica.cutOff(false)
	s.inStep(a)
}

func TestAHealthyMachineIsNotComparedUnasked(t *testing.T) {
	s := newSite(t, "root.img")
	a, exports := s.replicating()
	defer detach(a, exports)
	_, err := a.Start(t.Context(), "web01", relationship.Start{Kind: replication.KindResync}, state.Request{})
	wantReason(t, err, failure.ReasonWrongState)
	_, err = a.Remove(t.Context(), "web01", relationship.Remove{})
	wantReason(t, err, failure.ReasonAttached)
	s.startResync(a, relationship.Start{Kind: replication.KindVerify})
	s.await(a, "the refusal of a verify", func(v relationship.View) bool {
		return v.Record.Resync.State == replication.ResyncFailed && v.Record.Resync.Reason == failure.ReasonAttached && v.Cause == 0
	})
	s.startResync(a, relationship.Start{Kind: replication.KindResync, Force: true})
	s.inStep(a)
}
