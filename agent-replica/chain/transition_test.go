package chain

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

const (
	testSize = 40 << 20 // three segments, the last one short
)

func id(digit string) replication.ID { return replication.ID(strings.Repeat(digit, 32)) }

var (
	transferA, transferB, transferC = id("a"), id("b"), id("c")
	rootOfA                         = blockdiff.Hash{1}
	stampOfBase                     = disk.Stamp{Inode: 7, SizeBytes: testSize}
)

func preparedRecord(incomplete bool) Record {
	r := Record{VM: "web01", UID: id("0"), Directory: "p/web01", Term: 3, Prepared: true}
	for _, name := range []string{"root", "data"} {
		base := Base{File: "p/web01/" + name, Incomplete: incomplete}
		if !incomplete {
			base.Stamp = stampOfBase
		}
		r.Disks = append(r.Disks, Disk{ID: name, SizeBytes: testSize, LogicalSectorSize: 512, Base: base})
	}
	return r
}

func begin(transfer replication.ID, kind replication.ResyncKind, restart bool) func(*Record) error {
	return func(r *Record) error {
		return r.Begin(Begin{Term: r.Term, Transfer: transfer, Kind: kind, Proof: blockdiff.BLAKE3, Disks: geometries(r),
			Restart: restart, Lineage: r.Lineage, Cut: r.Cut, RecoveryPoints: r.RecoveryPoints})
	}
}

func geometries(r *Record) []Geometry {
	var disks []Geometry
	for _, d := range r.Disks {
		disks = append(disks, Geometry{ID: d.ID, SizeBytes: d.SizeBytes, LogicalSectorSize: d.LogicalSectorSize})
	}
	return disks
}

// must applies transitions that the test takes for granted.
func must(t *testing.T, r Record, steps ...func(*Record) error) Record {
	t.Helper()
	for i, step := range steps {
		if err := step(&r); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	return r
}

func attach(transfer replication.ID) func(*Record) error {
	return func(r *Record) error { return r.AttachLayers(transfer) }
}

// proveAll takes a session on every disk that is compared and proves it to its end.
func proveAll(transfer replication.ID) func(*Record) error {
	return func(r *Record) error {
		for _, d := range r.Disks {
			if r.Cursor(d.ID) != nil && r.Cursor(d.ID).MarksOnly {
				continue
			}
			session := r.Cursor(d.ID).Session + 1
			for _, err := range []error{
				r.TakeSession(transfer, d.ID, session),
				r.SaveCursor(transfer, d.ID, session, d.Segments(), blockdiff.Hash{9}),
				r.ProveDisk(transfer, d.ID, session, rootOfA),
			} {
				if err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// commitOf commits with these ids; a delta ships the cut first and keeps the lineage.
func commitOf(transfer replication.ID, lineage, cut string) func(*Record) error {
	return func(r *Record) error {
		if r.Transfer != nil && r.Transfer.Kind == replication.KindDelta {
			if err := shipAll(transfer, id(cut), rootOfA)(r); err != nil {
				return err
			}
			return r.commit(shippedCommit(r, transfer, id(cut)), allWritten(r))
		}
		c := Commit{Transfer: transfer, Term: r.Term, Lineage: id(lineage), Cut: id(cut), Time: time.Unix(1000, 0)}
		for _, d := range r.Disks {
			c.Roots = append(c.Roots, Root{Disk: d.ID, Root: rootOfA})
		}
		return r.commit(c, allWritten(r))
	}
}

// lowestOf is the file of a disk's lowest layer; empty when there is none.
func lowestOf(r *Record, diskID string) string {
	if d := r.Disk(diskID); d != nil && len(d.Layers) > 0 {
		return d.Layers[0].File
	}
	return ""
}

// states are every kind of place a record can be in.
func states(t *testing.T) map[string]Record {
	unprepared := preparedRecord(true)
	unprepared.Prepared = false
	empty, adopted := preparedRecord(true), preparedRecord(false)
	resync := replication.KindResync
	opened := func(from Record, transfer replication.ID) Record {
		return must(t, clone(from), begin(transfer, resync, false), attach(transfer))
	}
	committed := must(t, opened(adopted, transferA), proveAll(transferA), commitOf(transferA, "1", "2"))
	committedTwo := must(t, opened(committed, transferB), proveAll(transferB), commitOf(transferB, "3", "4"))
	startMerge := func(r *Record) error { return r.StartMerge("root", lowestOf(r, "root"), 1) }
	return map[string]Record{
		"unprepared":  unprepared,
		"empty":       empty,
		"adopted":     adopted,
		"first copy":  must(t, clone(empty), begin(transferA, replication.KindInitial, false)),
		"beginning":   must(t, clone(adopted), begin(transferA, resync, false)),
		"open":        opened(adopted, transferA),
		"proven":      must(t, opened(adopted, transferA), proveAll(transferA)),
		"verifying":   must(t, clone(adopted), begin(transferA, replication.KindVerify, false), proveAll(transferA)),
		"one waits":   committed,
		"two wait":    committedTwo,
		"merging":     must(t, clone(committed), startMerge),
		"merging two": must(t, clone(committedTwo), startMerge),
		"releasing":   must(t, clone(adopted), func(r *Record) error { return r.release(true) }),
	}
}

func clone(r Record) Record {
	r.Disks = slices.Clone(r.Disks)
	for i := range r.Disks {
		r.Disks[i].Layers = slices.Clone(r.Disks[i].Layers)
	}
	r.told = nil
	if r.Failover != nil {
		f := *r.Failover
		r.Failover = &f
	}
	r.Creating, r.Garbage = slices.Clone(r.Creating), slices.Clone(r.Garbage)
	if r.Transfer != nil {
		t := *r.Transfer
		t.Disks = slices.Clone(t.Disks)
		r.Transfer = &t
	}
	return r
}

// TestEveryTransitionInEveryState has one row for each transition and in it the reason of its failure in each
// state that refuses it; it succeeds in all others.
func TestEveryTransitionInEveryState(t *testing.T) {
	const (
		state, running, done, stale = failure.ReasonWrongState, failure.ReasonResyncRunning, failure.ReasonCommitted,
			failure.ReasonStaleSession
	)
	root := func(call func(*Record) error) func(*Record) error { return call }
	transitions := []struct {
		name    string
		apply   func(*Record) error
		refused map[string]string
	}{
		{"begin A", begin(transferA, replication.KindResync, false), map[string]string{
			"unprepared": state, "releasing": state, "first copy": state, "verifying": state,
			"one waits": done, "merging": done, "two wait": failure.ReasonLimit, "merging two": failure.ReasonLimit}},
		{"begin B", begin(transferB, replication.KindResync, false), map[string]string{
			"unprepared": state, "releasing": state, "first copy": running, "beginning": running, "open": running,
			"proven": running, "verifying": running, "two wait": done, "merging two": done}},
		{"begin C with restart", begin(transferC, replication.KindResync, true), map[string]string{
			"unprepared": state, "releasing": state, "two wait": failure.ReasonLimit, "merging two": failure.ReasonLimit}},
		{"begin C to verify", begin(transferC, replication.KindVerify, false), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "first copy": running, "beginning": running,
			"open": running, "proven": running, "verifying": running}},
		{"attach layers of A", attach(transferA), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "one waits": done, "merging": done,
			"two wait": state, "merging two": state}},
		{"take session 5", root(func(r *Record) error { return r.TakeSession(transferA, "root", 5) }), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "beginning": state,
			"one waits": done, "merging": done, "two wait": state, "merging two": state}},
		{"take session 0", root(func(r *Record) error { return r.TakeSession(transferA, "root", 0) }), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "beginning": state,
			"one waits": done, "merging": done, "two wait": state, "merging two": state,
			"first copy": stale, "open": stale, "proven": stale, "verifying": stale}},
		{"prove without a cursor", root(func(r *Record) error { return r.ProveDisk(transferA, "root", 0, rootOfA) }),
			map[string]string{
				"unprepared": state, "releasing": state, "empty": state, "adopted": state, "beginning": state,
				"one waits": done, "merging": done, "two wait": state, "merging two": state,
				"first copy": state, "open": state, "proven": stale, "verifying": stale}},
		{"commit A", commitOf(transferA, "1", "2"), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "beginning": state,
			"first copy": state, "open": state, "verifying": state, "two wait": state, "merging two": state}},
		{"commit A as another cut", commitOf(transferA, "5", "6"), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "beginning": state,
			"first copy": state, "open": state, "verifying": state, "two wait": state, "merging two": state,
			"one waits": done, "merging": done}},
		{"abort A", root(func(r *Record) error { return r.Abort(transferA) }), map[string]string{
			"one waits": done, "merging": done}},
		{"abort B", root(func(r *Record) error { return r.Abort(transferB) }), map[string]string{
			"two wait": done, "merging two": done}},
		{"start merge", root(func(r *Record) error { return r.StartMerge("root", lowestOf(r, "root"), 1) }), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "first copy": state,
			"beginning": state, "open": state, "proven": state, "verifying": state}},
		{"finish merge", root(func(r *Record) error { return r.FinishMerge("root", stampOfBase, disk.Stamp{}, Merged{}) }), map[string]string{
			"unprepared": state, "releasing": state, "empty": state, "adopted": state, "first copy": state,
			"beginning": state, "open": state, "proven": state, "verifying": state, "one waits": state, "two wait": state}},
		{"release and keep", root(func(r *Record) error { return r.release(false) }), map[string]string{
			"one waits": state, "two wait": state, "merging": state, "merging two": state}},
		{"release and delete", root(func(r *Record) error { return r.release(true) }), nil},
		{"a term below", root(func(r *Record) error { return r.RaiseTerm(2) }), everyState(t, failure.ReasonStaleTerm)},
		{"a term above", root(func(r *Record) error { return r.RaiseTerm(4) }), nil},
		{"doubt", root(func(r *Record) error { return r.Doubt("root", "", "it changed", disk.Stamp{Inode: 8}) }),
			map[string]string{"releasing": failure.ReasonNotFound}},
	}
	for _, transition := range transitions {
		for name, before := range states(t) {
			t.Run(transition.name+" when "+name, func(t *testing.T) {
				after := clone(before)
				err := transition.apply(&after)
				reason := ""
				if err != nil {
					reason = failure.Find(err).Reason
				}
				if reason != transition.refused[name] {
					t.Fatalf("reason %q (%v), want %q", reason, err, transition.refused[name])
				}
				if err == nil {
					checkInvariants(t, after)
					if !after.Releasing || before.Prepared && transition.name != "release and keep" {
						checkNothingLost(t, before, after) // else bases are left to the operator
					}
				}
			})
		}
	}
}

func everyState(t *testing.T, reason string) map[string]string {
	all := map[string]string{}
	for name := range states(t) {
		all[name] = reason
	}
	return all
}

// checkInvariants are what the package promises of every record.
func checkInvariants(t *testing.T, r Record) {
	t.Helper()
	seen := map[string]bool{}
	for _, file := range append(append(r.Files(), r.Garbage...), r.Creating...) {
		if seen[file] {
			t.Fatalf("%s stands in two places of the record", file)
		}
		seen[file] = true
	}
	for _, d := range r.Disks {
		if len(d.Layers) > r.RecoveryPoints+MaxWaiting+1 || r.RecoveryPoints == 0 && d.Waiting() > MaxWaiting {
			t.Fatalf("%d layers on %s, %d of them wait", len(d.Layers), d.ID, d.Waiting())
		}
		merging := 0
		for i, layer := range d.Layers {
			if layer.State == Receiving && (i != len(d.Layers)-1 || r.Transfer == nil || r.Transfer.ID != layer.Transfer) {
				t.Fatalf("a receiving layer of %s is not the open transfer's top layer", d.ID)
			}
			if layer.State == Merging {
				merging++
			}
			if layer.Point != nil && layer.State != Committed {
				t.Fatalf("layer %d of %s stands on a point and is %s", i, d.ID, layer.State)
			}
		}
		if merging > 1 {
			t.Fatalf("%d layers of %s are merging", merging, d.ID)
		}
		if d.Base.Incomplete && len(d.Layers) > 0 {
			t.Fatalf("a layer stands on the incomplete base of %s", d.ID)
		}
	}
	for _, file := range r.Garbage {
		if r.Refers(file) {
			t.Fatalf("%s is referred to and garbage", file)
		}
	}
}

// checkNothingLost says that every file is known after a transition that was known before it.
func checkNothingLost(t *testing.T, before, after Record) {
	t.Helper()
	known := append(append(after.Files(), after.Garbage...), after.Creating...)
	for _, file := range append(append(before.Files(), before.Garbage...), before.Creating...) {
		if !slices.Contains(known, file) {
			t.Fatalf("nobody knows %s any more", file)
		}
	}
}

func TestRandomHistoriesKeepTheInvariants(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := preparedRecord(rng.IntN(3) == 0)
		for range 60 {
			before := clone(r)
			after := clone(r)
			if randomStep(rng)(&after) == nil {
				checkInvariants(t, after)
				checkNothingLost(t, before, after)
				r = after
				if rng.IntN(4) == 0 {
					r.ForgetGarbage(slices.Clone(r.Garbage))
				}
			}
		}
	}
}

func randomStep(rng *rand.Rand) func(*Record) error {
	transfer := id(fmt.Sprintf("%x", rng.IntN(16)))
	kind := replication.ResyncKind(1 + rng.IntN(4))
	steps := []func(*Record) error{
		begin(transfer, kind, rng.IntN(2) == 0),
		func(r *Record) error {
			if r.Transfer == nil {
				return nil
			}
			return r.AttachLayers(r.Transfer.ID)
		},
		func(r *Record) error {
			if r.Transfer == nil {
				return nil
			}
			return proveAll(r.Transfer.ID)(r)
		},
		func(r *Record) error {
			if r.Transfer == nil {
				return nil
			}
			cut := fmt.Sprintf("%x", rng.IntN(16))
			return commitOf(r.Transfer.ID, cut, cut)(r)
		},
		func(r *Record) error { return r.Abort(transfer) },
		func(r *Record) error { return r.StartMerge("root", lowestOf(r, "root"), 1) },
		func(r *Record) error { return r.FinishMerge("root", stampOfBase, disk.Stamp{}, Merged{}) },
		func(r *Record) error { return r.StartMerge("data", lowestOf(r, "data"), 1) },
		func(r *Record) error { return r.FinishMerge("data", stampOfBase, disk.Stamp{}, Merged{}) },
		func(r *Record) error { return r.Doubt("data", "", "it changed", disk.Stamp{Inode: rng.Uint64()}) },
	}
	return steps[rng.IntN(len(steps))]
}

func TestTheCursorNeverGoesBackNorPastTheEnd(t *testing.T) {
	r := states(t)["open"]
	r = must(t, r, func(r *Record) error { return r.TakeSession(transferA, "root", 1) })
	save := func(segment int64) error {
		return r.SaveCursor(transferA, "root", 1, segment, blockdiff.Hash{byte(segment)})
	}
	for _, step := range []struct {
		segment int64
		refused bool
	}{{1, false}, {0, true}, {2, false}, {1, true}, {4, true}, {3, false}} {
		if err := save(step.segment); (err != nil) != step.refused {
			t.Errorf("cursor to %d: %v", step.segment, err)
		}
	}
	if err := r.RestartPass(transferA, "root", 1); err != nil || r.Cursor("root").Segment != 0 {
		t.Errorf("a pass that begins again: %v, cursor %d", err, r.Cursor("root").Segment)
	}
	if err := r.SaveCursor(transferA, "root", 0, 1, blockdiff.Hash{}); failure.Find(err).Reason != failure.ReasonStaleSession {
		t.Errorf("an older session saved a cursor: %v", err)
	}
}

func TestACommitWithoutDifferenceCommitsNoLayer(t *testing.T) {
	r := states(t)["proven"]
	c := Commit{Transfer: transferA, Term: 3, Lineage: id("1"), Cut: id("2")}
	for _, d := range r.Disks {
		c.Roots = append(c.Roots, Root{Disk: d.ID, Root: rootOfA})
	}
	if err := r.commit(c, settled{written: map[string]bool{"data": true}}); err != nil {
		t.Fatal(err)
	}
	if root := r.Disk("root"); len(root.Layers) != 0 || root.Base.Stamp != stampOfBase {
		t.Errorf("root has %d layers and stamp %v", len(root.Layers), root.Base.Stamp)
	}
	if data := r.Disk("data"); len(data.Layers) != 1 || data.Layers[0].State != Committed {
		t.Errorf("data has layers %v", data.Layers)
	}
	want := []string{"p/web01/root.aaaaaaaa.qcow2", "p/web01/root.aaaaaaaa.balloon"}
	if !slices.Equal(r.Garbage, want) {
		t.Errorf("garbage %v, want %v", r.Garbage, want)
	}
	if r.LayersToMerge() != 1 {
		t.Errorf("%d layers to merge", r.LayersToMerge())
	}
}

func TestARootThatDiffersIsRefused(t *testing.T) {
	r := states(t)["proven"]
	before := clone(r)
	c := Commit{Transfer: transferA, Term: 3, Lineage: id("1"), Cut: id("2"),
		Roots: []Root{{Disk: "root", Root: rootOfA}, {Disk: "data", Root: blockdiff.Hash{2}}}}
	if err := r.commit(c, settled{}); failure.Find(err).Reason != failure.ReasonProofFailed {
		t.Errorf("commit answered %v", err)
	}
	c.Roots[1] = Root{Disk: "root", Root: rootOfA}
	if err := r.commit(c, settled{}); failure.Find(err).Class != failure.Invalid {
		t.Errorf("a commit that names a disk twice answered %v", err)
	}
	if !reflect.DeepEqual(r, before) {
		t.Error("a refused commit changed the record")
	}
}

func TestTheFirstCopyCompletesTheBase(t *testing.T) {
	r := must(t, states(t)["first copy"], proveAll(transferA))
	if len(r.Creating) != 0 {
		t.Fatalf("the first copy wants layers %v", r.Creating)
	}
	r = must(t, r, commitOf(transferA, "1", "2"))
	for _, d := range r.Disks {
		if d.Base.Incomplete || d.Base.Stamp != stampOfBase || len(d.Layers) != 0 {
			t.Errorf("disk %s after its first copy: %+v", d.ID, d)
		}
	}
}

// A base whose first copy failed at a sync may read as if nothing had been lost. No abort makes it good.
func TestALostBaseIsNeverGoneOnWith(t *testing.T) {
	fail := func(r *Record) error { return r.FailTransfer(transferA, "EIO") }
	abort := func(r *Record) error { return r.Abort(transferA) }
	for name, r := range map[string]Record{
		"failed":  must(t, states(t)["first copy"], fail),
		"aborted": must(t, states(t)["first copy"], fail, abort),
	} {
		err := begin(transferB, replication.KindInitial, true)(&r)
		if failure.Find(err).Reason != failure.ReasonStorageFailed || !strings.Contains(err.Error(), "EIO") {
			t.Errorf("%s: another first copy answered %v", name, err)
		}
	}
}

func TestADoubtLastsUntilACommit(t *testing.T) {
	r := must(t, states(t)["proven"], func(r *Record) error { return r.Doubt("root", "", "it changed", disk.Stamp{Inode: 8}) })
	cursor := r.Cursor("root")
	if cursor.Segment != 0 || cursor.Proven {
		t.Errorf("the pass over a changed base goes on at %+v", cursor)
	}
	if err := r.SaveCursor(transferA, "root", 1, 1, blockdiff.Hash{}); failure.Find(err).Reason != failure.ReasonStaleSession {
		t.Errorf("the session that began before the doubt goes on: %v", err)
	}
	r = must(t, r, func(r *Record) error { return r.Abort(transferA) })
	if r.Disk("root").Doubt == "" {
		t.Error("an abort forgot the doubt")
	}
	r = must(t, r, begin(transferB, replication.KindResync, false), attach(transferB), proveAll(transferB),
		commitOf(transferB, "1", "2"))
	if r.Disk("root").Doubt != "" {
		t.Error("a commit kept the doubt")
	}
}

func TestGeometryMismatchesNameBoth(t *testing.T) {
	for _, c := range []struct {
		change func(*Geometry)
		reason string
		words  []string
	}{
		{func(g *Geometry) { g.SizeBytes = 512 }, failure.ReasonSizeMismatch, []string{"512 bytes", fmt.Sprint(testSize)}},
		{func(g *Geometry) { g.LogicalSectorSize = 4096 }, failure.ReasonSectorMismatch, []string{"4096", "512"}},
		{func(g *Geometry) { g.ID = "other" }, failure.ReasonNotFound, []string{"other"}},
	} {
		r := preparedRecord(false)
		disks := geometries(&r)
		c.change(&disks[1])
		err := r.Begin(Begin{Term: r.Term, Transfer: transferA, Kind: replication.KindResync, Proof: blockdiff.BLAKE3, Disks: disks})
		if failure.Find(err).Reason != c.reason {
			t.Errorf("answered %v, want %s", err, c.reason)
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not name %q", err, word)
			}
		}
	}
	r := preparedRecord(false)
	if err := r.CheckGeometry(geometries(&r)[:1]); err == nil {
		t.Error("a disk of the replica was left out")
	}
	if err := r.CheckGeometry(append(geometries(&r), geometries(&r)[0])); err == nil {
		t.Error("a disk was named twice")
	}
}
