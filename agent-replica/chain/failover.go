package chain

import (
	"slices"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
)

// Failover is what a replica that was failed over to remembers of it.
type Failover struct {
	// Point is what its disks hold.
	Point Point
	// StartTime is when its primary was refused, EndTime when the disks were let go; zero until then.
	StartTime, EndTime time.Time
}

// StartFailover makes the disks the operator's, as a point has them: the term is raised, what has not committed and what
// follows the point is discarded, and what is left merges into the bases. From here the primary is refused. Repeating it
// changes nothing. FAILED_OVER for another point than before.
func (r *Record) StartFailover(text string, now time.Time) error {
	if f := r.Failover; f != nil {
		if text == "" || len(text) <= len(f.Point.ID) && string(f.Point.ID[:len(text)]) == text {
			return nil
		}
		return failure.New(failure.Precondition, failure.ReasonFailedOver, "the replica was failed over to at %s, to the point %s",
			f.StartTime.Format(time.RFC3339), f.Point.ID).On(r.VM, "")
	}
	point, newest, err := r.FindPoint(text)
	if err != nil {
		return err
	}
	if err := r.RaiseTerm(r.Term + 1); err != nil {
		return err
	}
	r.discardTransfer()
	for i := range r.Disks {
		d := &r.Disks[i]
		above := len(d.Layers)
		if !newest {
			above = d.standing(point.ID)
		}
		kept := slices.Clone(d.Layers[:above])
		for _, layer := range d.Layers[above:] {
			r.discard(layer.File)
		}
		d.Layers = kept
	}
	r.voidPoints()
	r.Failover = &Failover{Point: point, StartTime: now}
	r.Cut, r.CutTime = point.ID, point.Time
	r.tell(event.FailoverStarted(r.VM, string(point.ID), r.Term))
	return nil
}

// AwaitsEnd says that a failover's merges are done and that its disks are yet to be let go.
func (r *Record) AwaitsEnd() bool {
	return r.Failover != nil && r.Failover.EndTime.IsZero() && !r.Releasing &&
		!slices.ContainsFunc(r.Disks, func(d Disk) bool { return len(d.Layers) > 0 })
}

// endFailover says that nothing of this agent touches the disks any more.
func (r *Record) endFailover(now time.Time) error {
	if !r.AwaitsEnd() {
		return failure.New(failure.Precondition, failure.ReasonWrongState, "no failover waits for its end").On(r.VM, "")
	}
	ended := *r.Failover
	ended.EndTime = now
	r.Failover = &ended
	r.tell(event.FailoverFinished(r.VM, string(ended.Point.ID), now.Sub(ended.StartTime)))
	return nil
}

// CheckFailover refuses a primary whose replica was failed over to.
func (r *Record) CheckFailover() error {
	if r.Failover == nil {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonFailedOver, "the replica was failed over to at %s",
		r.Failover.StartTime.Format(time.RFC3339)).On(r.VM, "").
		Try("Another host runs the machine by now: this primary must not send any more.")
}

// StartFailover is Record.StartFailover. All streams have ended.
func (v *VM) StartFailover(point string, now time.Time) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Update(func(r *Record) error { return r.StartFailover(point, now) })
	if err != nil {
		return Record{}, err
	}
	v.dropLayers(record)
	return record, nil
}

// EndFailover lets the disks go. WRONG_STATE while somebody still has them open, which time cures.
func (v *VM) EndFailover(now time.Time) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if v.users > 0 {
		return Record{}, failure.New(failure.Conflict, failure.ReasonWrongState, "its disks are still read").On(v.name, "")
	}
	return v.Update(func(r *Record) error { return r.endFailover(now) })
}

// FailoverPoint is the point that a failover would take, without doing anything.
func (r *Record) FailoverPoint(text string) (Point, error) {
	dry := *r
	dry.Disks = slices.Clone(r.Disks)
	if r.Failover != nil {
		return r.Failover.Point, dry.StartFailover(text, time.Time{})
	}
	point, _, err := r.FindPoint(text)
	return point, err
}
