package chain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Failover makes a replica's disks the machine's. It is begun in one change of the record: from there no primary is
// admitted and nothing is received. What lies above the point is then dropped, what lies up to it is merged, and in the
// end the disks are nobody's here. A failover that was begun ends, after however many crashes, and is never taken back.
type Failover struct {
	// Point is what the disks hold in the end; Newest says that it was the newest content.
	Point  Point
	Newest bool
	// Term is the one that refuses every primary of before.
	Term      uint64
	StartTime time.Time
	// Settled says that nothing of what is not the point's is left in the layer tables.
	Settled bool
	// EndTime is when the disks could be used; zero before.
	EndTime time.Time
	// MergedBytes were merged since StartTime.
	MergedBytes int64
	// Notes are sentences: what was discarded, and what must be known of the disks.
	Notes []string
}

// Keeps says whether the content of a committed layer belongs to the point.
func (f *Failover) Keeps(d *Disk, layer Layer) bool {
	at := d.standing(f.Point.ID)
	if f.Newest || f.Settled || at < 0 {
		return layer.State != Receiving
	}
	return slices.ContainsFunc(d.Layers[:at], func(l Layer) bool { return l.File == layer.File })
}

// AwaitsEnd says that a failover's merges are done and that its disks are yet to be let go.
func (r *Record) AwaitsEnd() bool {
	return r.FailingOver() && r.Failover.Settled && r.committedLayers() == 0
}

// FailingOver says whether a failover was begun and has not ended.
func (r *Record) FailingOver() bool { return r.Failover != nil && r.Failover.EndTime.IsZero() }

// CheckFailover refuses what a failover has put an end to, for good: FAILED_OVER.
func (r *Record) CheckFailover() error {
	if r.Failover == nil {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonFailedOver,
		"the replica was failed over to at %s; its disks are the machine's", r.Failover.StartTime.UTC().Format(time.RFC3339)).
		On(r.VM, "").Try("Nothing is replicated to it any more; this primary must not run the machine.")
}

// StartFailover begins a failover to the point that FindPoint finds for text. The term is raised, the open transfer and
// what was to be made for a point are discarded. Repeated with the same point it changes nothing; with another one it is
// WRONG_STATE. Failures: those of FindPoint.
func (r *Record) StartFailover(text string, now time.Time) error {
	if r.Failover != nil {
		return r.sameFailover(text)
	}
	if r.Releasing {
		return releasing().On(r.VM, "")
	}
	point, newest, err := r.FindPoint(text)
	if err != nil {
		return err
	}
	f := &Failover{Point: point, Newest: newest, Term: r.Term + 1, StartTime: now, Notes: r.discards(point, newest)}
	if err := r.RaiseTerm(f.Term); err != nil {
		return err
	}
	r.discardTransfer()
	r.Failover = f
	r.tell(event.FailoverStarted(r.VM, string(point.ID), f.Term))
	return nil
}

func (r *Record) sameFailover(text string) error {
	f := r.Failover
	if text == "" && f.Newest || text != "" && strings.HasPrefix(string(f.Point.ID), text) {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonWrongState,
		"the replica was failed over to the recovery point %s; that is not taken back", f.Point.ID.Short()).On(r.VM, "")
}

// discards says what a failover to the point takes from the operator, and what he must know of the disks.
func (r *Record) discards(point Point, newest bool) []string {
	var notes []string
	if t := r.Transfer; t != nil && t.Kind != replication.KindVerify {
		notes = append(notes, fmt.Sprintf("The transfer %s had not committed and is discarded.", t.ID.Short()))
	}
	later := r.Points()
	for i, p := range later {
		if p.ID == point.ID && !newest {
			notes = append(notes, fmt.Sprintf("What was committed after the recovery point is deleted, with %d later ones.",
				len(later)-i-1))
		}
	}
	for _, d := range r.Disks {
		if d.Doubt != "" {
			notes = append(notes, fmt.Sprintf("Disk %s may not hold what the primary had: %s.", d.ID, d.Doubt))
		}
	}
	return append(notes, fmt.Sprintf("The machine's disks are as they were at %s; what was written later is lost.",
		point.Time.UTC().Format(time.RFC3339)))
}

// settleFailover drops what is not the point's: the layers that stand on it and above, and the marks of all points, so
// that the rest is merged. Nobody merges meanwhile.
func (r *Record) settleFailover() error {
	f := r.Failover
	if f == nil || f.Settled {
		return nil
	}
	if !f.Newest {
		if err := r.dropLater(f.Point); err != nil {
			return err
		}
	}
	r.dropPoints(func(Point) bool { return true })
	f.Settled = true
	return nil
}

// dropLater drops all that was committed after a point. Its roots were not kept.
func (r *Record) dropLater(point Point) error {
	for i := range r.Disks {
		d := &r.Disks[i]
		at := d.standing(point.ID)
		if at < 0 {
			return failure.New(failure.Internal, failure.ReasonInternal, "the recovery point %s is not kept", point.ID.Short()).
				On(r.VM, d.ID)
		}
		later := d.Layers[at:]
		r.dropLayers(d, func(l Layer) bool {
			return slices.ContainsFunc(later, func(dropped Layer) bool { return dropped.File == l.File })
		})
		d.Root = blockdiff.Hash{}
	}
	r.Cut, r.CutTime, r.ProvenTime, r.ProvenRoot = point.ID, point.Time, point.Time, ""
	return nil
}

// finishFailover says that the bases hold the point, durably, and that nobody here has them open.
func (r *Record) finishFailover(now time.Time) error {
	if !r.AwaitsEnd() {
		return failure.New(failure.Internal, failure.ReasonWrongState, "the failover has not come to its end").On(r.VM, "")
	}
	r.Failover.EndTime = now
	r.tell(event.FailoverFinished(r.VM, string(r.Failover.Point.ID), now.Sub(r.Failover.StartTime)))
	return nil
}

// StartFailover is Record.StartFailover. What streams of the VM still receive counts for nothing from here, and is closed
// when they end.
func (v *VM) StartFailover(text string, now time.Time) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	return v.Update(func(r *Record) error { return r.StartFailover(text, now) })
}

// SettleFailover is Record.settleFailover. The caller has the holds to merge and to transfer, so that nobody uses what is
// dropped but readers, who keep it open.
func (v *VM) SettleFailover() (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Update(func(r *Record) error { return r.settleFailover() })
	if err != nil {
		return Record{}, err
	}
	v.dropLayers(record)
	return record, nil
}

// EndFailover lets the disks go when every layer is merged. WRONG_STATE while somebody has them open.
func (v *VM) EndFailover(now time.Time) (Record, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if v.users > 0 {
		return Record{}, v.inUse()
	}
	return v.Update(func(r *Record) error { return r.finishFailover(now) })
}

// InUse says whether somebody has the disks open.
func (v *VM) InUse() bool {
	v.turn.Lock()
	defer v.turn.Unlock()
	return v.users > 0
}
