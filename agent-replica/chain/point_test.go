package chain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// seal makes a point of what the record holds.
func seal(layer replication.ID) func(*Record) error {
	return func(r *Record) error {
		layers := r.pointLayers(layer)
		if err := r.planPoint(layers); err != nil {
			return err
		}
		return r.attachPoint(r.Cut, layers, time.Unix(2000, 0))
	}
}

// keep sets how many points are kept.
func keep(points int) func(*Record) error {
	return func(r *Record) error {
		r.RecoveryPoints = points
		return nil
	}
}

// heldRecord is that of a replica that was made before, and keeps that many points.
func heldRecord(points int) Record {
	r := preparedRecord(false)
	r.Lineage, r.Cut, r.RecoveryPoints = id("0"), id("0"), points
	return r
}

// committedBy is the record after a whole transfer of that kind, with the cut of that digit.
func committedBy(t *testing.T, r Record, transfer, cut string, kind replication.ResyncKind) Record {
	t.Helper()
	return must(t, r, begin(id(transfer), kind, false), attach(id(transfer)), proveAll(id(transfer)), commitOf(id(transfer), cut, cut))
}

// merged merges everything that waits.
func merged(t *testing.T, r Record) Record {
	t.Helper()
	for {
		next := mergeNext(&r)
		if next == nil {
			return r
		}
		r = must(t, r, next)
	}
}

// mergeNext is the next step of the record's merges; nil when there is none.
func mergeNext(r *Record) func(*Record) error {
	for i := range r.Disks {
		d := &r.Disks[i]
		at := d.NextMerge(func(int) bool { return false })
		switch {
		case at < 0:
		case d.Layers[at].State == Merging:
			return func(r *Record) error { return r.FinishMerge(d.ID, stampOfBase, disk.Stamp{}, Merged{}) }
		default:
			return func(r *Record) error { return r.StartMerge(d.ID, d.Layers[at].File, 1) }
		}
	}
	return nil
}

// files are the layers of a disk in words: its file's transfer, with a star where it stands on a point.
func layersOf(r Record) string {
	var words []string
	for _, layer := range r.Disks[0].Layers {
		word := layer.Transfer.Short()[:1]
		if layer.Point != nil {
			word += "*" + string(layer.Point.ID[:1])
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestALifeWithPoints(t *testing.T) {
	r := heldRecord(2)
	expect := func(when, want string, points ...string) {
		t.Helper()
		checkInvariants(t, r)
		var kept []string
		for _, p := range r.Points() {
			kept = append(kept, string(p.ID[:1]))
		}
		if got := layersOf(r); got != want || !slices.Equal(kept, points) {
			t.Fatalf("%s: layers %q and points %v, want %q and %v", when, got, kept, want, points)
		}
	}
	r = committedBy(t, r, "a", "1", replication.KindDelta)
	r = must(t, r, seal(id("5")))
	expect("sealed above what waits", "a 5*1", "1")
	r = committedBy(t, r, "b", "2", replication.KindDelta)
	r = merged(t, r)
	expect("merged", "5*1", "1")
	r = must(t, r, seal(id("6")))
	r = merged(t, committedBy(t, r, "c", "3", replication.KindDelta))
	expect("two points", "5*1 6*2", "1", "2")
	if err := seal(id("7"))(&r); failure.Find(err).Reason != failure.ReasonLimit {
		t.Errorf("a third point: %v", err)
	}
	r = must(t, r, func(r *Record) error { return r.DropPoint(id("1")) }, seal(id("7")))
	expect("the oldest dropped", "5 6*2 7*3", "2", "3")
	r = merged(t, r)
	expect("and merged", "6*2 7*3", "2", "3")
	if err := seal(id("8"))(&r); failure.Find(err).Reason != failure.ReasonWrongState {
		t.Errorf("a second point of one cut: %v", err)
	}
	r = committedBy(t, r, "d", "4", replication.KindResync)
	expect("resynchronized", "6 7 d")
	if r.PointCut != "" {
		t.Error("the newest point is remembered after a resync")
	}
	r = merged(t, r)
	expect("in the end", "")
}

// TestAResyncWithoutDifferenceKeepsThePoints: nothing of them was found wrong.
func TestAResyncWithoutDifferenceKeepsThePoints(t *testing.T) {
	r := must(t, committedBy(t, heldRecord(2), "a", "1", replication.KindDelta), seal(id("5")))
	r = must(t, r, begin(transferB, replication.KindResync, false), attach(transferB), proveAll(transferB))
	c := Commit{Transfer: transferB, Term: r.Term, Lineage: id("3"), Cut: id("3")}
	for _, d := range r.Disks {
		c.Roots = append(c.Roots, Root{Disk: d.ID, Root: rootOfA})
	}
	if err := r.commit(c, settled{}); err != nil || len(r.Points()) != 1 {
		t.Errorf("%d points, %v", len(r.Points()), err)
	}
}

func TestWhatCannotBeSealed(t *testing.T) {
	ready := must(t, committedBy(t, heldRecord(1), "a", "1", replication.KindDelta))
	for name, c := range map[string]struct {
		change func(*Record) error
		reason string
	}{
		"ready":               {func(*Record) error { return nil }, ""},
		"a transfer":          {begin(transferB, replication.KindVerify, false), failure.ReasonWrongState},
		"no points":           {keep(0), failure.ReasonLimit},
		"doubt":               {func(r *Record) error { r.Disks[1].Doubt = "it changed"; return nil }, failure.ReasonWrongState},
		"nothing committed":   {func(r *Record) error { r.Lineage = ""; return nil }, failure.ReasonWrongState},
		"sealed already":      {seal(id("5")), failure.ReasonWrongState},
		"a removal":           {func(r *Record) error { return r.release(true) }, failure.ReasonWrongState},
		"too many that wait":  {func(r *Record) error { return waitToTheBound(r) }, failure.ReasonLimit},
		"an unmade point":     {func(r *Record) error { return r.planPoint(r.pointLayers(id("6"))) }, ""},
		"a cut that has gone": {func(r *Record) error { r.PointCut = r.Cut; return nil }, failure.ReasonWrongState},
	} {
		t.Run(name, func(t *testing.T) {
			r := must(t, clone(ready), c.change)
			reason := ""
			if err := seal(id("9"))(&r); err != nil {
				reason = failure.Find(err).Reason
			} else {
				checkInvariants(t, r)
			}
			if reason != c.reason {
				t.Errorf("answered %q, want %q", reason, c.reason)
			}
		})
	}
}

// waitToTheBound adds committed layers until no point may be added.
func waitToTheBound(r *Record) error {
	for i := range r.Disks {
		d := &r.Disks[i]
		for n := len(d.Layers); n <= r.RecoveryPoints+MaxWaiting; n++ {
			d.Layers = append(d.Layers, Layer{File: fmt.Sprint(d.ID, n), State: Committed})
		}
	}
	return nil
}

func TestRandomHistoriesWithPointsKeepTheInvariants(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		r := must(t, preparedRecord(false), keep(rng.IntN(4)))
		for range 120 {
			before, after := clone(r), clone(r)
			if randomStepWithPoints(rng, &r)(&after) != nil {
				continue
			}
			checkInvariants(t, after)
			checkNothingLost(t, before, after)
			for _, d := range after.Disks {
				var kept []Point
				for _, layer := range d.Layers {
					if layer.Point != nil {
						kept = append(kept, *layer.Point)
					}
				}
				if !slices.Equal(kept, after.Points()) {
					t.Fatalf("seed %d: disk %s has other points", seed, d.ID)
				}
			}
			r = after
			r.ForgetGarbage(slices.Clone(r.Garbage))
		}
	}
}

// TestTheDepthsBound: nothing adds a layer to as many as there may be.
func TestTheDepthsBound(t *testing.T) {
	r := must(t, committedBy(t, heldRecord(1), "a", "1", replication.KindDelta), seal(id("5")))
	r = merged(t, r)
	for _, digit := range []string{"b", "c"} {
		r = committedBy(t, r, digit, digit, replication.KindDelta)
	}
	r = must(t, r, func(r *Record) error { return r.DropPoint(id("1")) }, seal(id("6")))
	checkInvariants(t, r)
	if depth := len(r.Disks[0].Layers); depth != r.RecoveryPoints+3 {
		t.Fatalf("%d layers", depth)
	}
	for name, add := range map[string]func(*Record) error{
		"a delta": begin(id("d"), replication.KindDelta, false), "a resync": begin(id("d"), replication.KindResync, false),
		"a point": func(r *Record) error { r.Cut = id("d"); return seal(id("7"))(r) },
	} {
		if after := clone(r); failure.Find(add(&after)).Reason != failure.ReasonLimit {
			t.Errorf("%s was added", name)
		}
	}
}

func randomStepWithPoints(rng *rand.Rand, r *Record) func(*Record) error {
	switch rng.IntN(5) {
	case 0:
		return seal(replication.ID(fmt.Sprintf("%016x%016x", rng.Uint64(), 0)))
	case 1:
		points := r.Points()
		if len(points) == 0 {
			return keep(r.RecoveryPoints)
		}
		return func(r *Record) error { return r.DropPoint(points[rng.IntN(len(points))].ID) }
	case 2:
		if next := mergeNext(r); next != nil {
			return next
		}
	}
	return randomStep(rng)
}

// TestALoweredNumberOfPointsLetsNoLayerBeAdded: what is beyond it is merged first.
func TestALoweredNumberOfPointsLetsNoLayerBeAdded(t *testing.T) {
	r := heldRecord(3)
	for i, digit := range []string{"1", "2", "3"} {
		r = merged(t, committedBy(t, r, fmt.Sprintf("%x", 10+i), digit, replication.KindDelta))
		r = must(t, r, seal(id(fmt.Sprint(5+i))))
	}
	r = must(t, r, keep(0))
	if err := begin(id("e"), replication.KindDelta, false)(&r); failure.Find(err).Reason != failure.ReasonLimit {
		t.Errorf("a transfer began above three points too many: %v", err)
	}
	r = must(t, r, func(r *Record) error { r.dropPoints(func(Point) bool { return true }); return nil })
	r = merged(t, r)
	checkInvariants(t, committedBy(t, r, "e", "e", replication.KindDelta))
}

func TestPointsAreFoundByTheBeginningOfTheirID(t *testing.T) {
	r := heldRecord(3)
	r.Lineage, r.Cut = id("9"), replication.ID("ab3"+strings.Repeat("0", 29))
	for _, cut := range []string{"ab1", "ab2"} {
		point := &Point{ID: replication.ID(cut + strings.Repeat("0", 29))}
		for i := range r.Disks {
			r.Disks[i].Layers = append(r.Disks[i].Layers, Layer{File: r.Disks[i].ID + cut, State: Committed, Point: point})
		}
	}
	for text, want := range map[string]string{
		"": "ab3 newest", "ab3": "ab3 newest", "ab1": "ab1", string(r.Points()[1].ID): "ab2",
		"ab": failure.ReasonInvalidArgument, "x": failure.ReasonNotFound, "ab10x": failure.ReasonNotFound,
	} {
		point, newest, err := r.FindPoint(text)
		got := fmt.Sprintf("%.3s", point.ID)
		if newest {
			got += " newest"
		}
		if err != nil {
			got = failure.Find(err).Reason
		}
		if got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
	r.Cut = r.Points()[1].ID
	if point, newest, err := r.FindPoint("ab2"); err != nil || newest || point.ID != r.Cut {
		t.Errorf("a sealed point of the present cut: %v %t %v", point, newest, err)
	}
	r.Lineage = ""
	if _, _, err := r.FindPoint(""); failure.Find(err).Reason != failure.ReasonWrongState {
		t.Errorf("before the first commit: %v", err)
	}
}
