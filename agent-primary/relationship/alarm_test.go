package relationship_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

func TestAnotherAgentAtTheReplicasAddressIsAnAlarmThatEndsSoon(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.another = true })
		p.begin(a, replication.KindResync)
		for range 60 {
			time.Sleep(time.Minute)
			synctest.Wait()
			if view := p.view(a); view.Trouble == nil || !strings.Contains(reasonCodes(view), "WRONG_ROLE:3") {
				t.Fatalf("%v, %s", view.Trouble, reasonCodes(view))
			}
		}
		if view := p.view(a); view.Attempts < 300 || view.Attempts > 1000 {
			t.Fatalf("%d attempts in an hour", view.Attempts)
		}
		p.replica.set(func(r *replica) { r.another = false })
		p.settle()
		p.want(a, replication.Replicating)
		if n := p.count(a, event.TypeResyncInterrupted); n != 1 {
			t.Fatalf("%d interruptions were told of", n)
		}
	})
}

func TestAnAlarmAtRestEndsSoon(t *testing.T) {
	bubble(t, func(t *testing.T, p *pair) {
		a := p.replicating()
		defer a.stop()
		p.replica.set(func(r *replica) { r.another = true })
		time.Sleep(time.Hour)
		synctest.Wait()
		if view := p.view(a); !strings.Contains(reasonCodes(view), "WRONG_ROLE:3") {
			t.Fatalf("%s", reasonCodes(view))
		}
		p.replica.set(func(r *replica) { r.another = false })
		p.settle()
		if view := p.want(a, replication.Replicating); view.Health() != replication.HealthNormal {
			t.Fatalf("10 s after the right agent is back: %s", reasonCodes(view))
		}
	})
}
