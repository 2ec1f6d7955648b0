package chain

import (
	"strings"
	"testing"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// heldWithTwoPoints is a record with the points 1 and 2, the newest content 3, and a transfer that is open.
func heldWithTwoPoints(t *testing.T) Record {
	t.Helper()
	r := heldRecord(2)
	r = committedBy(t, r, "a", "1", replication.KindDelta)
	r = must(t, r, seal(id("5")))
	r = merged(t, committedBy(t, r, "b", "2", replication.KindDelta))
	r = must(t, r, seal(id("6")))
	r = merged(t, committedBy(t, r, "c", "3", replication.KindDelta))
	return must(t, r, begin(id("d"), replication.KindDelta, false), attach(id("d")))
}

func failOver(point string) func(*Record) error {
	return func(r *Record) error { return r.StartFailover(point, time.Unix(9000, 0)) }
}

// TestAFailoverKeepsWhatThePointHas says which layers stay, and that the rest is discarded and the primary refused in the
// same step.
func TestAFailoverKeepsWhatThePointHas(t *testing.T) {
	for name, test := range map[string]struct{ point, layers, cut string }{
		"the newest content": {"", "5 6", "3"},
		"the newer point":    {string(id("2"))[:6], "5", "2"},
		"the oldest point":   {string(id("1")), "", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			before := heldWithTwoPoints(t)
			r := must(t, before, failOver(test.point))
			if got := layersOf(r); got != test.layers || r.Transfer != nil || len(r.Points()) > 0 {
				t.Errorf("layers %q, transfer %v, points %v", got, r.Transfer, r.Points())
			}
			if r.Term != before.Term+1 || r.Cut != id(test.cut) || r.Failover.Point.ID != id(test.cut) {
				t.Errorf("term %d, cut %s, failover %+v", r.Term, r.Cut, r.Failover)
			}
			for _, layer := range before.Disks[0].Layers {
				if !r.Refers(layer.File) && !strings.Contains(strings.Join(r.Garbage, " "), layer.File) {
					t.Errorf("nobody knows of %s any more", layer.File)
				}
			}
			if r.AwaitsEnd() != (test.layers == "") {
				t.Error("the disks are let go before everything is merged, or never")
			}
			r = must(t, merged(t, r), func(r *Record) error { return r.endFailover(time.Unix(9001, 0)) })
			if layersOf(r) != "" || r.Failover.EndTime.IsZero() {
				t.Errorf("in the end: layers %q, %+v", layersOf(r), r.Failover)
			}
			checkInvariants(t, r)
		})
	}
}

func TestAfterAFailoverThePrimaryIsRefused(t *testing.T) {
	r := must(t, heldWithTwoPoints(t), failOver(""))
	refused := map[string]func(*Record) error{
		"begin":         begin(id("e"), replication.KindDelta, false),
		"resync":        begin(id("e"), replication.KindResync, true),
		"seal":          seal(id("7")),
		"another point": failOver(string(id("1"))),
	}
	for name, do := range refused {
		changed := clone(r)
		if err := do(&changed); failure.Find(err).Reason != failure.ReasonFailedOver {
			t.Errorf("%s: %v", name, err)
		}
	}
	again := must(t, r, failOver(""))
	if again.Term != r.Term {
		t.Error("a failover that is repeated raises the term once more")
	}
	if err := r.CheckFailover(); failure.Find(err).Reason != failure.ReasonFailedOver {
		t.Errorf("the primary is told %v", err)
	}
}

func TestWhatCannotBeFailedOverTo(t *testing.T) {
	fresh := preparedRecord(true)
	if err := fresh.StartFailover("", time.Unix(1, 0)); failure.Find(err).Reason != failure.ReasonWrongState {
		t.Errorf("an empty replica: %v", err)
	}
	held := heldWithTwoPoints(t)
	if err := held.StartFailover("ffff", time.Unix(1, 0)); failure.Find(err).Reason != failure.ReasonNotFound || held.Failover != nil {
		t.Errorf("a point of nobody: %v", err)
	}
}
