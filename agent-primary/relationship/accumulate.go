package relationship

import (
	"fmt"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// judgeMachine looks at the open disks' logs: a loss, or more accumulated than the limit, requires a resync.
func (o *owner) judgeMachine() {
	record := o.record()
	if record.State() != replication.Replicating || !o.machine.isOpen() {
		return
	}
	for i, loss := range o.machine.losses() {
		if loss.Cause != hrl.None {
			o.require(func(r Record) (Record, []event.Event, error) { return r.trackingLost(now(), i, loss) })
			return
		}
	}
	figures, open := o.machine.figures()
	if !open {
		return
	}
	// What is sent and not acknowledged is on the replica, and counted in large units.
	if accumulated := figures.Live + figures.Pending; record.overLimit(accumulated) {
		o.require(func(r Record) (Record, []event.Event, error) { return r.accumulated(now(), accumulated) })
	}
}

// require makes a change of the owner's own.
func (o *owner) require(transition func(Record) (Record, []event.Event, error)) {
	if a := o.handle(change{transition: transition}); a.err != nil {
		o.log.Error("that a resync is required was not saved", "error", a.err)
	}
}

// totalBytes is the size of all disks.
func (r Record) totalBytes() (total int64) {
	for _, disk := range r.Disks {
		total += disk.SizeBytes
	}
	return total
}

// overLimit says whether so much is more than may accumulate.
func (r Record) overLimit(accumulated int64) bool {
	limit := int64(r.Spec.HRLLimitPercent)
	return limit > 0 && accumulated > r.totalBytes()/100*limit
}

// accumulated says that the logs hold more than they may: a resync costs less than to send it.
func (r Record) accumulated(now time.Time, bytes int64) (Record, []event.Event, error) {
	return r.require(now, replication.CauseHRLOverLimit, "", fmt.Sprintf("%s have accumulated, more than %d %% of the disks' %s",
		event.Size(bytes), r.Spec.HRLLimitPercent, event.Size(r.totalBytes())))
}

// hasPending says whether the replica may lack something: disks that were not closed in order are to be looked at.
func (o *owner) hasPending(r Record) bool {
	if figures, open := o.machine.figures(); open {
		return figures.Accumulated() > 0
	}
	return r.Pending > 0 || r.leftOpen()
}

// leftOpen says that a tracked VM's disks were not closed in order.
func (r Record) leftOpen() bool {
	for _, d := range r.Disks {
		if d.Log != nil && d.ClosedStamp == (disk.Stamp{}) {
			return true
		}
	}
	return false
}

// showNextCycle shows when the next cycle begins.
func (o *owner) showNextCycle(r Record, todo task) {
	at := time.Time{}
	if r.Tracked() && r.State() == replication.Replicating && todo != taskMerge && todo != taskTransfer {
		at = o.cycleAt
	}
	o.live.change(func(l *Live) { l.NextCycle = at })
}
