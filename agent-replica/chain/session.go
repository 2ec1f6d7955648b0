package chain

import (
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Session asks for a session of the open transfer on a disk.
type Session struct {
	Transfer replication.ID
	Disk     string
	Number   uint64
	// Term is the caller's; one that is lower than the record's is refused.
	Term uint64
	// Restart takes the disk's cursor back to the beginning. A shipment has none.
	Restart bool
	// Shipment is what the session ships; a pass has none.
	Shipment replication.ID
	Time     time.Time
}

// TakeSession is Record.TakeSession for a pass and a caller of that term; with Restart the pass begins anew. WRONG_STATE
// for a disk over which no pass goes.
func (v *VM) TakeSession(s Session) (Record, error) {
	return v.Update(func(r *Record) error {
		if err := r.CheckTerm(s.Term); err != nil {
			return err
		}
		if t := r.Cursor(s.Disk); t != nil && t.MarksOnly {
			return failure.New(failure.Precondition, failure.ReasonWrongState, "no pass goes over the disk in this transfer").
				On(r.VM, s.Disk)
		}
		if err := r.TakeSession(s.Transfer, s.Disk, s.Number); err != nil {
			return err
		}
		r.startWriting(s.Disk, s.Time)
		if !s.Restart {
			return nil
		}
		return r.RestartPass(s.Transfer, s.Disk, s.Number)
	})
}

// CheckTerm refuses a term that is lower than the record's with STALE_TERM: it may have been raised since the caller was
// admitted.
func (r *Record) CheckTerm(term uint64) error {
	if term < r.Term {
		return r.staleTerm(term)
	}
	return nil
}

// RaiseTerm raises the record's term; a lower one is refused with STALE_TERM. The sessions of a lower term are
// superseded: nothing that they receive counts any more.
func (r *Record) RaiseTerm(term uint64) error {
	if term < r.Term {
		return r.staleTerm(term)
	}
	if term > r.Term && r.Transfer != nil {
		for i := range r.Transfer.Disks {
			r.Transfer.Disks[i].Session++
		}
	}
	r.Term = term
	return nil
}
