package chain

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

var failoverTime = time.Unix(5000, 0)

func failover(text string) func(*Record) error {
	return func(r *Record) error { return r.StartFailover(text, failoverTime) }
}

func settle(r *Record) error { return r.settleFailover() }

func finish(r *Record) error { return r.finishFailover(failoverTime.Add(time.Minute)) }

// pointed is a record with the points 1 and 2, what was committed after them, and an open transfer.
func pointed(t *testing.T) Record {
	t.Helper()
	r := merged(t, committedBy(t, heldRecord(2), "a", "1", replication.KindDelta))
	r = must(t, r, seal(id("5")))
	r = merged(t, committedBy(t, r, "b", "2", replication.KindDelta))
	r = must(t, r, seal(id("6")))
	r = committedBy(t, r, "c", "3", replication.KindDelta)
	r = must(t, r, begin(id("d"), replication.KindDelta, false), attach(id("d")))
	r.told = nil
	return r
}

func TestAFailover(t *testing.T) {
	for text, c := range map[string]struct {
		settled string
		cut     replication.ID
	}{"": {"5 6 c", id("3")}, "33": {"5 6 c", id("3")}, "2": {"5", id("2")}, "1": {"", id("1")}} {
		t.Run("to "+text, func(t *testing.T) {
			before := pointed(t)
			r := must(t, clone(before), failover(text))
			if r.Term != before.Term+1 || r.Failover.Term != r.Term || r.Transfer != nil || !r.FailingOver() {
				t.Errorf("begun with term %d, transfer %v, %+v", r.Term, r.Transfer, r.Failover)
			}
			if got := layersOf(r); got != "5*1 6*2 c" {
				t.Errorf("begun with layers %q", got)
			}
			if r.Failover.Point.ID != c.cut || len(r.Failover.Notes) == 0 ||
				!strings.Contains(strings.Join(r.Failover.Notes, " "), id("d").Short()) {
				t.Errorf("to %s, %q", r.Failover.Point.ID, r.Failover.Notes)
			}
			r = must(t, r, settle, settle)
			if got := layersOf(r); got != c.settled || len(r.Points()) != 0 || r.Cut != c.cut {
				t.Errorf("settled with layers %q, points %v, cut %s", got, r.Points(), r.Cut)
			}
			checkInvariants(t, r)
			checkNothingLost(t, before, r)
			if c.settled != "" && reasonOf(finish(&r)) != failure.ReasonWrongState {
				t.Error("ended with layers to merge")
			}
			r = must(t, merged(t, r), finish)
			if r.FailingOver() || r.Failover.EndTime.IsZero() || len(r.Disks[0].Layers) != 0 {
				t.Errorf("ended as %+v", r.Failover)
			}
			if got := len(strings.Fields(c.settled)); r.Failover.MergedBytes != 0 && got == 0 {
				t.Errorf("%d bytes were merged", r.Failover.MergedBytes)
			}
			var types []string
			for _, e := range r.told {
				types = append(types, e.Type)
			}
			if types[0] != event.TypeFailoverStarted || types[len(types)-1] != event.TypeFailoverFinished ||
				len(slices.DeleteFunc(types, func(s string) bool { return s != event.TypeFailoverStarted })) != 1 {
				t.Errorf("told %v", r.told)
			}
		})
	}
}

func TestAFailoverIsNotTakenBack(t *testing.T) {
	for name, steps := range map[string][]func(*Record) error{
		"begun": nil, "settled": {settle}, "ended": {settle, func(r *Record) error { *r = merged(t, *r); return nil }, finish},
	} {
		r := must(t, pointed(t), append([]func(*Record) error{failover("2")}, steps...)...)
		term, told := r.Term, len(r.told)
		for text, reason := range map[string]string{"2": "", string(id("2")): "", "": failure.ReasonWrongState,
			"1": failure.ReasonWrongState, "3": failure.ReasonWrongState} {
			if err := failover(text)(&r); reasonOf(err) != reason {
				t.Errorf("%s: again to %q: %v", name, text, err)
			}
		}
		if r.Term != term || len(r.told) != told {
			t.Errorf("%s: a repetition changed the record", name)
		}
	}
	newest := must(t, pointed(t), failover(""))
	for text, reason := range map[string]string{"": "", "3": "", "2": failure.ReasonWrongState} {
		if err := failover(text)(&newest); reasonOf(err) != reason {
			t.Errorf("from the newest to %q: %v", text, err)
		}
	}
}

func TestWhatCannotBeFailedOverTo(t *testing.T) {
	for name, c := range map[string]struct {
		record Record
		text   string
		reason string
	}{
		"an empty replica":  {preparedRecord(true), "", failure.ReasonWrongState},
		"nothing committed": {preparedRecord(false), "", failure.ReasonWrongState},
		"no such point":     {pointed(t), "9", failure.ReasonNotFound},
		"a removal":         {must(t, pointed(t), func(r *Record) error { return r.release(true) }), "", failure.ReasonWrongState},
	} {
		before := clone(c.record)
		if err := failover(c.text)(&c.record); reasonOf(err) != c.reason || c.record.Failover != nil || c.record.Term != before.Term {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNothingGoesOnAfterAFailover: every transition of a primary, and every one of points, is refused at each of its steps.
func TestNothingGoesOnAfterAFailover(t *testing.T) {
	over := failure.ReasonFailedOver
	transitions := map[string]struct {
		apply  func(*Record) error
		begun  string
		ended  string
		before bool // it changes nothing, and is not refused
	}{
		"begin":         {begin(id("d"), replication.KindDelta, false), over, over, false},
		"begin another": {begin(id("e"), replication.KindResync, true), over, over, false},
		"attach":        {attach(id("d")), over, over, false},
		"session":       {func(r *Record) error { return r.TakeSession(id("d"), "root", 9) }, over, over, false},
		"ship":          {func(r *Record) error { return r.BeginShipment(id("d"), "root", 9, id("7")) }, over, over, false},
		"finish": {func(r *Record) error {
			return r.FinishShipment(id("d"), "root", 0, Shipment{id("7"), rootOfA})
		}, over, over, false},
		"commit": {func(r *Record) error {
			return r.commit(Commit{Transfer: id("d"), Term: 9, Lineage: id("0"), Cut: id("7")}, settled{})
		}, over, over, false},
		"fail":              {func(r *Record) error { return r.FailTransfer(id("d"), "EIO") }, over, over, false},
		"seal":              {seal(id("8")), over, over, false},
		"drop a point":      {func(r *Record) error { return r.DropPoint(id("2")) }, over, over, false},
		"fold the points":   {foldPoints, over, over, false},
		"find a point":      {func(r *Record) error { _, _, err := r.FindPoint(""); return err }, over, over, false},
		"remove":            {func(r *Record) error { return r.release(false) }, failure.ReasonWrongState, "", false},
		"remove and delete": {func(r *Record) error { return r.release(true) }, failure.ReasonWrongState, over, false},
		"abort":             {func(r *Record) error { return r.Abort(id("d")) }, "", "", true},
	}
	begun := must(t, pointed(t), failover("2"))
	ended := must(t, merged(t, must(t, clone(begun), settle)), finish)
	for name, c := range transitions {
		for state, r := range map[string]Record{"begun": begun, "ended": ended} {
			want := c.begun
			if state == "ended" {
				want = c.ended
			}
			after := clone(r)
			if err := c.apply(&after); reasonOf(err) != want {
				t.Errorf("%s when %s: %v, want %q", name, state, err, want)
			} else if c.before && (after.Term != r.Term || layersOf(after) != layersOf(r)) {
				t.Errorf("%s when %s changed the record", name, state)
			}
		}
	}
	if err := ended.CheckTerm(3); reasonOf(err) != failure.ReasonStaleTerm {
		t.Errorf("the term of before: %v", err)
	}
}
