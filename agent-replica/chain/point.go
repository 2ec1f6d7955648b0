package chain

import (
	"slices"
	"strings"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Point is a recovery point: the content of all disks of a VM at one cut.
type Point struct {
	// ID is the cut's.
	ID replication.ID
	// Time is when the machine was so, by the primary's clock.
	Time time.Time
}

// Points are the recovery points that are kept, oldest first. The newest content is none of them. Every disk has the same.
func (r *Record) Points() []Point {
	var points []Point
	for _, d := range r.Disks[:min(1, len(r.Disks))] {
		for _, layer := range d.Layers {
			if layer.Point != nil {
				points = append(points, *layer.Point)
			}
		}
	}
	return points
}

// Newest is the newest content as a point; an empty one before the first commit.
func (r *Record) Newest() Point {
	at := r.CutTime
	if at.IsZero() {
		at = r.ProvenTime
	}
	return Point{ID: r.Cut, Time: at}
}

// FindPoint is the point of that id, or whose id alone begins so; newest is set for the newest content, which an empty
// text means too. A point that was sealed is found before the newest content of the same cut. NOT_FOUND, INVALID_ARGUMENT.
func (r *Record) FindPoint(text string) (point Point, newest bool, err error) {
	if err := r.CheckFailover(); err != nil {
		return Point{}, false, err
	}
	if r.Lineage == "" || r.Incomplete() || r.Releasing {
		return Point{}, false, failure.New(failure.Precondition, failure.ReasonWrongState,
			"the replica holds nothing that could be read: no transfer has committed").On(r.VM, "")
	}
	if text == "" {
		return r.Newest(), true, nil
	}
	points := r.Points()
	sealed := len(points)
	if !slices.ContainsFunc(points, func(p Point) bool { return p.ID == r.Cut }) {
		points = append(points, r.Newest())
	}
	found := -1
	for i, p := range points {
		if !strings.HasPrefix(string(p.ID), text) {
			continue
		}
		if found >= 0 {
			return Point{}, false, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"more than one recovery point begins with %.40q", text).On(r.VM, "").Try("Give more of its id.")
		}
		found = i
	}
	if found < 0 {
		return Point{}, false, failure.New(failure.NotFound, failure.ReasonNotFound, "there is no recovery point %.40q", text).
			On(r.VM, "").Try("vmreplica recovery-points %s lists them.", r.VM)
	}
	return points[found], found == sealed, nil
}

// standing is the index of the layer that stands on a point; -1 when the point is not kept.
func (d *Disk) standing(point replication.ID) int {
	return slices.IndexFunc(d.Layers, func(l Layer) bool { return l.Point != nil && l.Point.ID == point })
}

// dropPoints gives up points: the layers that stand on them wait for their merge from here.
func (r *Record) dropPoints(drop func(Point) bool) {
	for _, point := range r.Points() {
		if drop(point) {
			r.tell(event.PointDropped(r.VM, string(point.ID), point.Time))
		}
	}
	for i := range r.Disks {
		layers := slices.Clone(r.Disks[i].Layers)
		for j := range layers {
			if layers[j].Point != nil && drop(*layers[j].Point) {
				layers[j].Point = nil
			}
		}
		r.Disks[i].Layers = layers
	}
}

// voidPoints gives up all points: a resync has found that something of them may be wrong.
func (r *Record) voidPoints() {
	r.dropPoints(func(Point) bool { return true })
	r.PointCut, r.PointTime = "", time.Time{}
}

// DropPoint gives up one point on all disks. NOT_FOUND when it is not kept.
func (r *Record) DropPoint(id replication.ID) error {
	if err := r.CheckFailover(); err != nil {
		return err
	}
	if !slices.ContainsFunc(r.Points(), func(p Point) bool { return p.ID == id }) {
		return failure.New(failure.NotFound, failure.ReasonNotFound, "there is no recovery point %.40s", string(id)).On(r.VM, "")
	}
	r.dropPoints(func(p Point) bool { return p.ID == id })
	return nil
}

// planPoint puts the layers of a new point in Creating. Failures are Sealable's, and LIMIT_EXCEEDED when there would be
// more points than are kept or more layers than the depth's bound.
func (r *Record) planPoint(layers []Layer) error {
	if err := r.canSeal(); err != nil {
		return err
	}
	r.discardCreating()
	for _, layer := range layers {
		r.Creating = append(r.Creating, layer.File)
	}
	return nil
}

func (r *Record) canSeal() error {
	if err := r.Sealable(); err != nil {
		return err
	}
	if len(r.Points()) >= r.RecoveryPoints {
		return failure.New(failure.Exhausted, failure.ReasonLimit, "%d recovery points are kept", r.RecoveryPoints).On(r.VM, "")
	}
	for _, d := range r.Disks {
		if len(d.Layers) > r.RecoveryPoints+MaxWaiting {
			return failure.New(failure.Exhausted, failure.ReasonLimit, "%d layers wait to be merged", d.Waiting()).On(r.VM, d.ID)
		}
	}
	return nil
}

// Sealable says why no point can be made of what the disks hold, however many are kept: WRONG_STATE while a transfer is
// open, before the first commit, in doubt of a base, and when the cut is the newest point's.
func (r *Record) Sealable() error {
	wrong := func(what string) error {
		return failure.New(failure.Precondition, failure.ReasonWrongState, "no recovery point can be made: %s", what).On(r.VM, "")
	}
	switch {
	case r.Failover != nil:
		return r.CheckFailover()
	case r.Releasing:
		return releasing().On(r.VM, "")
	case r.Transfer != nil:
		return wrong("a transfer is open")
	case r.Lineage == "" || r.Incomplete():
		return wrong("no transfer has committed")
	case r.Cut == r.PointCut:
		return wrong("the newest content is one already")
	case slices.ContainsFunc(r.Disks, func(d Disk) bool { return d.Doubt != "" }):
		return wrong("what the disks hold is in doubt")
	}
	return nil
}

// attachPoint puts the layers of a new point, which exist, in the table: the present cut is the point they stand on.
func (r *Record) attachPoint(cut replication.ID, layers []Layer, now time.Time) error {
	if err := r.canSeal(); err != nil {
		return err
	}
	if r.Cut != cut || len(layers) != len(r.Disks) || len(r.Creating) != len(layers) {
		return failure.New(failure.Internal, failure.ReasonInternal, "the record has changed under a new recovery point").
			On(r.VM, "")
	}
	point := r.Newest()
	for i := range r.Disks {
		layer := layers[i]
		layer.Point = &point
		r.Disks[i].Layers = append(slices.Clone(r.Disks[i].Layers), layer)
	}
	r.Creating, r.PointCut, r.PointTime = nil, cut, now
	r.tell(event.PointSealed(r.VM, string(point.ID), point.Time))
	return nil
}
