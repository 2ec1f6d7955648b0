package relationship_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func TestAKillForgetsFewSecondsOfTheProgress(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		var pass *resync.Progress
		p.moved = func(moving *resync.Progress) { pass = moving }
		p.during = func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		p.begin(a, replication.KindResync)
		synctest.Wait()
		for sent := int64(1); sent <= 10; sent++ {
			pass.Restore(resync.Figures{WireBytesSent: sent})
			time.Sleep(7 * time.Second)
			synctest.Wait()
			saved := p.view(a).Record.Resync.Disks[0].Figures
			if saved.WireBytesSent != sent {
				t.Fatalf("%d bytes were sent 7 s ago and %d are saved", sent, saved.WireBytesSent)
			}
		}
	})
}

func TestWhatAnEarlierResyncSentIsItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		before := p.view(a).Statistics.SentBytes
		var begun []int64
		p.moved = func(pass *resync.Progress) {
			figures := pass.Figures()
			begun = append(begun, figures.WireBytesSent)
			figures.WireBytesSent += 1000
			pass.Restore(figures)
		}
		p.during = func(_ context.Context, attempt int) error {
			if attempt == 2 {
				return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "I/O error")
			}
			return nil
		}
		p.begin(a, replication.KindResync)
		p.settle()
		if sent := p.view(a).Statistics.SentBytes - before; sent != 1000 {
			t.Fatalf("the failed resync counts %d bytes", sent)
		}
		p.begin(a, replication.KindResync)
		p.settle()
		if len(begun) != 2 || begun[1] != 0 {
			t.Fatalf("the resyncs began with %d bytes sent", begun)
		}
	})
}

func TestAReplicaThatIsAwayAtRestIsToldOfOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		for round := 1; round <= 2; round++ {
			p.replica.set(func(r *replica) { r.down = true })
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			p.replica.set(func(r *replica) { r.down = false })
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			lost, recovered := p.count(a, event.TypeConnectionLost), p.count(a, event.TypeConnectionRecovered)
			if lost != round || recovered != round {
				t.Fatalf("after %d absences: %d losses and %d recoveries", round, lost, recovered)
			}
		}
	})
}

func TestAStallIsSaid(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		var pass *resync.Progress
		p.moved = func(moving *resync.Progress) { pass = moving }
		p.during = func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		p.begin(a, replication.KindResync)
		synctest.Wait()
		for compared := int64(1); compared <= 20; compared++ {
			pass.Restore(resync.Figures{ComparedBytes: 1000 * compared})
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if shown := p.view(a).Progress[0]; shown.BytesPerSecond == 0 || !shown.StalledSince.IsZero() {
			t.Fatalf("while it moves: %+v", shown)
		}
		stopped := time.Now()
		time.Sleep(14 * time.Second)
		synctest.Wait()
		if shown := p.view(a).Progress[0]; !shown.StalledSince.IsZero() {
			t.Fatalf("after 14 s: %+v", shown)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		shown := p.view(a).Progress[0]
		if shown.BytesPerSecond != 0 || shown.StalledSince.Before(stopped.Add(-2*time.Second)) || shown.StalledSince.After(stopped) {
			t.Fatalf("after 17 s, from %v: %+v", stopped, shown)
		}
		pass.Restore(resync.Figures{ComparedBytes: 20000, WireBytesSent: 1})
		time.Sleep(time.Second)
		synctest.Wait()
		if shown := p.view(a).Progress[0]; !shown.StalledSince.IsZero() {
			t.Fatalf("a byte crosses the wire: %+v", shown)
		}
	})
}

func TestAResyncThatGoesOnAfterAStartIsToldOfOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		hold := true
		p.during = func(ctx context.Context, _ int) error {
			if !hold {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}
		p.begin(a, replication.KindResync)
		p.settle()
		if n := p.count(a, event.TypeResyncTakenUp); n != 0 {
			t.Fatalf("%d events tell of a start that was none", n)
		}
		a.stop()
		hold = false
		a = p.start()
		defer a.stop()
		p.settle()
		p.want(a, replication.Replicating)
		p.begin(a, replication.KindResync)
		p.settle()
		if n := p.count(a, event.TypeResyncTakenUp); n != 1 {
			t.Fatalf("%d events", n)
		}
	})
}
