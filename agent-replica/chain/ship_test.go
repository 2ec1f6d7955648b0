package chain

import (
	"testing"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// shipAll ships to every disk of the open transfer.
func shipAll(transfer, shipment replication.ID, root blockdiff.Hash) func(*Record) error {
	return func(r *Record) error {
		for _, d := range r.Disks {
			session := r.Cursor(d.ID).Session + 1
			if err := r.BeginShipment(transfer, d.ID, session, shipment); err != nil {
				return err
			}
			if err := r.FinishShipment(transfer, d.ID, session, Shipment{shipment, root}); err != nil {
				return err
			}
		}
		return nil
	}
}

// shippedCommit is the commit of the open transfer with a cut that was shipped to all disks.
func shippedCommit(r *Record, transfer, cut replication.ID) Commit {
	c := Commit{Transfer: transfer, Term: r.Term, Lineage: r.Lineage, Cut: cut, Time: time.Unix(1000, 0)}
	if r.Transfer.Kind != replication.KindDelta {
		c.Lineage = cut
	}
	for _, t := range r.Transfer.Disks {
		root := Root{Disk: t.ID, Root: t.Root, Shipment: cut, ShipmentRoot: t.Shipment.Root}
		if t.MarksOnly {
			root.Root = r.Disk(t.ID).Root
		}
		c.Roots = append(c.Roots, root)
	}
	return c
}

func allWritten(r *Record) settled {
	s := settled{written: map[string]bool{}, stamps: map[string]disk.Stamp{}}
	for _, d := range r.Disks {
		s.written[d.ID], s.stamps[d.ID] = true, stampOfBase
	}
	return s
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return failure.Find(err).Reason
}

var cutOfDelta = id("5")

func TestADeltaFollowsWhatTheReplicaHolds(t *testing.T) {
	held := heldRecord(0)
	good := Begin{Transfer: transferA, Kind: replication.KindDelta, Proof: blockdiff.BLAKE3, Term: 3, Disks: geometries(&held),
		Lineage: id("0"), Cut: id("0")}
	mismatch, state := failure.ReasonReplicaRecord, failure.ReasonWrongState
	for name, c := range map[string]struct {
		record func(*Record)
		begin  func(*Begin)
		reason string
	}{
		"as it should be":    {func(*Record) {}, func(*Begin) {}, ""},
		"another lineage":    {func(*Record) {}, func(b *Begin) { b.Lineage = id("1") }, mismatch},
		"another cut":        {func(*Record) {}, func(b *Begin) { b.Cut = id("1") }, mismatch},
		"no cut":             {func(*Record) {}, func(b *Begin) { b.Lineage, b.Cut = "", "" }, mismatch},
		"a disk in doubt":    {func(r *Record) { r.Disks[1].Doubt = "it changed" }, func(*Begin) {}, mismatch},
		"an incomplete base": {func(r *Record) { r.Disks[1].Base.Incomplete = true }, func(*Begin) {}, state},
		"nothing committed":  {func(r *Record) { r.Lineage, r.Cut = "", "" }, func(b *Begin) { b.Lineage, b.Cut = "", "" }, state},
		"single disks":       {func(*Record) {}, func(b *Begin) { b.MarksOnly = []string{"root"} }, failure.ReasonInvalidArgument},
	} {
		r, b := clone(held), good
		c.record(&r)
		c.begin(&b)
		if err := r.Begin(b); reasonOf(err) != c.reason {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
		resync := b
		resync.Kind, resync.MarksOnly = replication.KindResync, []string{"data"}
		r = clone(held)
		c.record(&r)
		if err := r.Begin(resync); name != "single disks" && reasonOf(err) != c.reason {
			t.Errorf("a resync of marks, %s: %v, want %q", name, err, c.reason)
		}
	}
	good.Kind, good.MarksOnly = replication.KindResync, []string{"other"}
	if err := held.Begin(good); reasonOf(err) != failure.ReasonNotFound {
		t.Errorf("marks of an unknown disk: %v", err)
	}
}

// A delta that was begun before the doubt neither goes on nor commits.
func TestADoubtEndsADelta(t *testing.T) {
	begun := begin(transferA, replication.KindDelta, false)
	r := must(t, heldRecord(0), begun, attach(transferA), shipAll(transferA, cutOfDelta, rootOfA))
	c := shippedCommit(&r, transferA, cutOfDelta)
	r = must(t, r, func(r *Record) error { return r.Doubt("root", "", "it changed", disk.Stamp{Inode: 8}) })
	if err := r.commit(c, allWritten(&r)); reasonOf(err) != failure.ReasonReplicaRecord {
		t.Errorf("the commit: %v", err)
	}
	if err := begun(&r); reasonOf(err) != failure.ReasonReplicaRecord {
		t.Errorf("going on: %v", err)
	}
}

func TestADeltasCommit(t *testing.T) {
	r := heldRecord(2)
	for i := range r.Disks {
		r.Disks[i].Root = blockdiff.Hash{7}
	}
	r = must(t, r, begin(transferA, replication.KindDelta, false), attach(transferA), shipAll(transferA, cutOfDelta, rootOfA))
	c := shippedCommit(&r, transferA, cutOfDelta)
	c.CutTime = time.Unix(900, 0)
	if err := r.commit(c, allWritten(&r)); err != nil {
		t.Fatal(err)
	}
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	want := prover.Extend(blockdiff.Hash{7}, rootOfA)
	for _, d := range r.Disks {
		if d.Root != want || len(d.Layers) != 1 || d.Layers[0].State != Committed {
			t.Errorf("disk %s has root %s and layers %v", d.ID, d.Root, d.Layers)
		}
	}
	switch {
	case r.Lineage != id("0") || r.Cut != cutOfDelta || r.Transfer != nil:
		t.Errorf("lineage %s, cut %s, transfer %v", r.Lineage, r.Cut, r.Transfer)
	case !r.ProvenTime.Equal(c.CutTime) || !r.CutTime.Equal(c.CutTime) || !r.CommitTime.Equal(c.Time):
		t.Errorf("proven %v, cut %v, committed %v", r.ProvenTime, r.CutTime, r.CommitTime)
	case r.ProvenRoot != prover.Combine([]string{"root", "data"}, []blockdiff.Hash{want, want}).String():
		t.Errorf("proven root %s", r.ProvenRoot)
	case len(r.told) != 0:
		t.Errorf("a delta told %v", r.told)
	}
	if err := r.commit(c, settled{}); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

// TestWhatWasNotShippedDoesNotCommit changes one thing of a commit, or of what came before it, at a time.
func TestWhatWasNotShippedDoesNotCommit(t *testing.T) {
	state, invalid := failure.ReasonWrongState, failure.ReasonInvalidArgument
	take := func(r *Record) error { return r.BeginShipment(transferA, "root", r.Cursor("root").Session+1, id("6")) }
	none := func(*Record) error { return nil }
	for name, c := range map[string]struct {
		before func(*Record) error
		change func(*Commit)
		reason map[replication.ResyncKind]string
	}{
		"everything":        {none, func(*Commit) {}, both("", "")},
		"no shipment named": {none, func(c *Commit) { c.Roots[0].Shipment = "" }, both(state, state)},
		"none at all": {none, func(c *Commit) {
			for i := range c.Roots {
				c.Roots[i].Shipment = ""
			}
		}, both(state, state)},
		"another root":           {none, func(c *Commit) { c.Roots[1].Root = blockdiff.Hash{3} }, both(failure.ReasonReplicaRecord, failure.ReasonProofFailed)},
		"another shipment root":  {none, func(c *Commit) { c.Roots[1].ShipmentRoot = blockdiff.Hash{3} }, both(failure.ReasonProofFailed, failure.ReasonProofFailed)},
		"another shipment":       {none, func(c *Commit) { c.Roots[1].Shipment = id("6") }, both(invalid, invalid)},
		"another cut":            {none, func(c *Commit) { c.Cut = id("6") }, both(invalid, invalid)},
		"the cut before":         {none, func(c *Commit) { c.Cut = id("0") }, both(invalid, invalid)},
		"another lineage":        {none, func(c *Commit) { c.Lineage = id("9") }, both(invalid, "")},
		"the same lineage":       {none, func(c *Commit) { c.Lineage = id("0") }, both("", invalid)},
		"a lower term":           {none, func(c *Commit) { c.Term = 2 }, both(failure.ReasonStaleTerm, failure.ReasonStaleTerm)},
		"another one was begun":  {take, func(*Commit) {}, both(state, state)},
		"a disk is left out":     {none, func(c *Commit) { c.Roots = c.Roots[:1] }, both(invalid, invalid)},
		"the pass began anew":    {func(r *Record) error { return r.RestartPass(transferA, "root", r.Cursor("root").Session) }, func(*Commit) {}, both(state, state)},
		"a session took over":    {func(r *Record) error { return r.TakeSession(transferA, "root", 99) }, func(*Commit) {}, both("", "")},
		"the transfer was begun": {func(r *Record) error { return begin(transferA, r.Transfer.Kind, false)(r) }, func(*Commit) {}, both("", "")},
	} {
		for kind, reason := range c.reason {
			r := must(t, heldRecord(0), begin(transferA, kind, false), attach(transferA), proveAll(transferA),
				shipAll(transferA, cutOfDelta, rootOfA))
			commit := shippedCommit(&r, transferA, cutOfDelta)
			c.change(&commit)
			r = must(t, r, c.before)
			if err := r.commit(commit, allWritten(&r)); reasonOf(err) != reason {
				t.Errorf("%s of a %s: %v, want %q", name, kind, err, reason)
			}
		}
	}
}

func both(delta, resync string) map[replication.ResyncKind]string {
	return map[replication.ResyncKind]string{replication.KindDelta: delta, replication.KindResync: resync}
}

// A cut is of all disks: one that only some were shipped is none.
func TestACutOfSomeDisksDoesNotCommit(t *testing.T) {
	r := must(t, heldRecord(0), begin(transferA, replication.KindResync, false), attach(transferA), proveAll(transferA))
	r = must(t, r, func(r *Record) error { return r.BeginShipment(transferA, "root", 7, cutOfDelta) },
		func(r *Record) error { return r.FinishShipment(transferA, "root", 7, Shipment{cutOfDelta, rootOfA}) })
	c := shippedCommit(&r, transferA, cutOfDelta)
	c.Roots[1].Shipment, c.Roots[1].ShipmentRoot = "", blockdiff.Hash{}
	if err := r.commit(c, allWritten(&r)); reasonOf(err) != failure.ReasonInvalidArgument {
		t.Errorf("answered %v", err)
	}
}

func TestShipmentsKeepToTheirOrder(t *testing.T) {
	open := must(t, heldRecord(0), begin(transferA, replication.KindResync, false), attach(transferA))
	ship := func(session uint64, shipment replication.ID) func(*Record) error {
		return func(r *Record) error { return r.BeginShipment(transferA, "root", session, shipment) }
	}
	finish := func(session uint64, shipment replication.ID) func(*Record) error {
		return func(r *Record) error {
			return r.FinishShipment(transferA, "root", session, Shipment{shipment, rootOfA})
		}
	}
	proven := must(t, clone(open), proveAll(transferA))
	verifying := must(t, heldRecord(0), begin(transferA, replication.KindVerify, false), proveAll(transferA))
	begun := must(t, clone(proven), ship(5, cutOfDelta))
	for name, c := range map[string]struct {
		record Record
		apply  func(*Record) error
		reason string
	}{
		"before the proof":          {open, ship(5, cutOfDelta), failure.ReasonWrongState},
		"in a verify":               {verifying, ship(5, cutOfDelta), failure.ReasonWrongState},
		"after the proof":           {proven, ship(5, cutOfDelta), ""},
		"without an id":             {proven, ship(5, "x"), failure.ReasonInvalidArgument},
		"an older session":          {begun, ship(5, id("6")), failure.ReasonStaleSession},
		"finished":                  {begun, finish(5, cutOfDelta), ""},
		"finished by another":       {begun, finish(4, cutOfDelta), failure.ReasonStaleSession},
		"another one is finished":   {begun, finish(5, id("6")), failure.ReasonInternal},
		"finished under its term":   {must(t, clone(begun), func(r *Record) error { return r.RaiseTerm(4) }), finish(5, cutOfDelta), failure.ReasonStaleSession},
		"after the pass began anew": {must(t, clone(begun), func(r *Record) error { return r.RestartPass(transferA, "root", 5) }), ship(6, id("6")), failure.ReasonWrongState},
	} {
		r := clone(c.record)
		if err := c.apply(&r); reasonOf(err) != c.reason {
			t.Errorf("%s: %v, want %q", name, err, c.reason)
		}
	}
}

// The set of disks that are compared stays what it was when the transfer was begun.
func TestAMarkedDiskStaysMarked(t *testing.T) {
	r := heldRecord(0)
	b := Begin{Transfer: transferA, Kind: replication.KindResync, Proof: blockdiff.BLAKE3, Term: 3, Disks: geometries(&r),
		Lineage: id("0"), Cut: id("0"), MarksOnly: []string{"data"}}
	must(t, r, func(r *Record) error { return r.Begin(b) })
	r = must(t, r, func(r *Record) error { return r.Begin(b) }, attach(transferA), proveAll(transferA),
		shipAll(transferA, cutOfDelta, rootOfA))
	other := b
	other.MarksOnly = nil
	if err := r.Begin(other); reasonOf(err) != failure.ReasonWrongState {
		t.Errorf("begun with another set: %v", err)
	}
	if err := r.commit(shippedCommit(&r, transferA, cutOfDelta), allWritten(&r)); err != nil {
		t.Error(err)
	}
	if len(r.told) != 1 || r.told[0].Type != event.TypeResyncCommitted {
		t.Errorf("told %v", r.told)
	}
}

// The number of points follows the operator's, in the transfers as well as beside them.
func TestThePolicyIsKept(t *testing.T) {
	r := heldRecord(0)
	b := Begin{Transfer: transferA, Kind: replication.KindDelta, Proof: blockdiff.BLAKE3, Term: 3, Disks: geometries(&r),
		Lineage: id("0"), Cut: id("0"), RecoveryPoints: 4}
	if r = must(t, r, func(r *Record) error { return r.Begin(b) }); r.RecoveryPoints != 4 {
		t.Errorf("%d points are kept", r.RecoveryPoints)
	}
	if r = must(t, r, func(r *Record) error { return r.SetPolicy(2) }); r.RecoveryPoints != 2 {
		t.Errorf("%d points are kept", r.RecoveryPoints)
	}
	r = must(t, r, func(r *Record) error { return r.release(true) })
	if err := r.SetPolicy(2); reasonOf(err) != failure.ReasonWrongState {
		t.Errorf("a policy for what is being removed: %v", err)
	}
}
