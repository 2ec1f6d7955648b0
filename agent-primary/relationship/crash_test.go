package relationship_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

// crashing is a store whose host dies at its n-th transaction: before it is durable, or after. Then nothing is
// kept any more, as nothing runs any more.
type crashing struct {
	state.Store
	at, count int
	after     bool
	dead      bool
}

func (c *crashing) Update(fn func(state.Tx) error) error {
	if c.dead {
		return errCrash
	}
	c.count++
	if c.count != c.at {
		return c.Store.Update(fn)
	}
	c.dead = true
	if c.after {
		if err := c.Store.Update(fn); err != nil {
			return err
		}
	}
	return errCrash
}

// stories are what operators do; each ends where the test expects it to when nothing crashes.
var stories = map[string]struct {
	tell func(p *pair, a agent)
	// ends are the states in which it may rest, whenever the crash was.
	ends []replication.State
}{
	"the first copy": {
		func(p *pair, a agent) { p.try(a, replication.KindInitial); p.settle() },
		[]replication.State{replication.ReadyForInitialReplication, replication.Replicating},
	},
	"a resync after the first copy": {
		func(p *pair, a agent) {
			p.try(a, replication.KindInitial)
			p.settle()
			p.images.write(rootPath)
			p.replica.set(func(r *replica) { r.merges = 2 })
			p.try(a, replication.KindResync)
			p.settle()
		},
		[]replication.State{replication.ReadyForInitialReplication, replication.Replicating, replication.WaitingForStartResynchronize},
	},
	"a resync whose commit is in doubt": {
		func(p *pair, a agent) {
			p.try(a, replication.KindInitial)
			p.settle()
			p.replica.set(func(r *replica) { r.loseReply = true })
			p.try(a, replication.KindResync)
			time.Sleep(time.Minute)
			p.settle()
		},
		[]replication.State{replication.ReadyForInitialReplication, replication.Replicating},
	},
	"a cancelled resync": {
		func(p *pair, a agent) {
			p.try(a, replication.KindInitial)
			p.settle()
			p.during = func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }
			p.try(a, replication.KindResync)
			p.settle()
			_, _ = a.Cancel(p.t.Context(), "web01", "", state.Request{}) // the host may be dead
			p.settle()
		},
		[]replication.State{
			replication.ReadyForInitialReplication, replication.Replicating, replication.WaitingForStartResynchronize,
		},
	},
	"a resync that is suspended and resumed": {
		func(p *pair, a agent) {
			p.try(a, replication.KindInitial)
			p.settle()
			p.during = func(ctx context.Context, attempt int) error {
				if attempt == 2 {
					<-ctx.Done()
				}
				return ctx.Err()
			}
			p.try(a, replication.KindResync)
			p.settle()
			_, _ = a.Suspend(p.t.Context(), "web01", "", state.Request{})
			p.settle()
			_, _ = a.Resume(p.t.Context(), "web01", state.Request{})
			p.settle()
		},
		[]replication.State{
			replication.ReadyForInitialReplication, replication.Replicating, replication.ResynchronizeSuspended,
		},
	},
	"a verify that finds a difference": {
		func(p *pair, a agent) {
			p.try(a, replication.KindInitial)
			p.settle()
			p.replica.set(func(r *replica) { r.holds = map[string]int64{"root": 9} })
			p.try(a, replication.KindVerify)
			p.settle()
		},
		nil, // what it holds was changed behind everybody's back: honest cannot judge it
	},
}

// try starts a resync on a host that may be dead.
func (p *pair) try(a agent, kind replication.ResyncKind) {
	_, _ = a.Start(p.t.Context(), "web01", relationship.Start{Kind: kind}, state.Request{})
}

func TestEveryTransactionMayBeTheLast(t *testing.T) {
	for name, story := range stories {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after %t", name, after), func(t *testing.T) {
				crashes := 0
				for at := 1; ; at++ {
					crashed := false
					synctest.Test(t, func(t *testing.T) { crashed = newPair(t).survive(story.tell, story.ends, at, after) })
					if !crashed {
						break
					}
					crashes++
				}
				if crashes < 6 {
					t.Fatalf("only %d transactions were the last", crashes)
				}
			})
		}
	}
}

// survive tells a story on a host that dies at a transaction, starts the agent again, and looks whether it has a
// way on. It says whether the host did die.
func (p *pair) survive(tell func(*pair, agent), ends []replication.State, at int, after bool) bool {
	store := &crashing{Store: statetest.New(p.recorder), at: at, after: after}
	a := p.startOn(store)
	if a.Manager == nil {
		return true // it died before it had anything
	}
	_, createErr := a.Create(p.t.Context(), spec())
	if createErr == nil {
		tell(p, a)
	}
	a.stop()
	if !store.dead {
		return false
	}
	p.during = nil
	p.replica.set(func(r *replica) { r.merges = 0 })
	a = p.start()
	defer a.stop()
	time.Sleep(2 * time.Minute)
	p.settle()
	if _, err := a.Get("web01"); err != nil || p.view(a).State == replication.Error {
		if createErr == nil {
			p.t.Fatalf("transaction %d: a finished creation is lost: %v", at, err)
		}
		if _, err := a.Create(p.t.Context(), spec()); err != nil {
			p.t.Fatalf("transaction %d: the creation cannot be repeated: %v", at, err)
		}
	}
	view := p.view(a)
	if ends != nil {
		p.honest(view)
		p.among(at, view, ends)
	}
	p.out(a, at)
	return true
}

func (p *pair) among(at int, view relationship.View, ends []replication.State) {
	for _, end := range ends {
		if view.State == end {
			return
		}
	}
	p.t.Fatalf("transaction %d: rests in %v: %+v", at, view.State, view.Resync)
}

// out takes the exit of whatever state the agent is in: in the end the replica holds what the primary has.
func (p *pair) out(a agent, at int) {
	if p.view(a).Suspension != nil {
		if _, err := a.Resume(p.t.Context(), "web01", state.Request{}); err != nil {
			p.t.Fatalf("transaction %d: %v", at, err)
		}
		p.settle()
	}
	kind := replication.KindResync
	if p.view(a).State == replication.ReadyForInitialReplication {
		kind = replication.KindInitial
	}
	p.begin(a, kind)
	p.settle()
	p.want(a, replication.Replicating)
	if p.replica.position.Transfer != "" {
		p.t.Fatalf("transaction %d: transfer %s is left open", at, p.replica.position.Transfer)
	}
	if held := p.replica.holds["root"]; held != p.images.version[rootPath] {
		p.t.Fatalf("transaction %d: the replica holds version %d of %d", at, held, p.images.version[rootPath])
	}
	if _, err := a.Remove(p.t.Context(), "web01", relationship.Remove{}); err != nil {
		p.t.Fatalf("transaction %d: %v", at, err)
	}
}
