package relationship

import (
	"time"

	"vmreplica/internal/replication"
)

// task is what a record asks for.
type task uint8

const (
	// taskNone: nothing until something changes.
	taskNone task = iota
	// taskAbandon tells the replica to discard transfers.
	taskAbandon
	// taskTransfer compares, ships and commits.
	taskTransfer
	// taskMerge follows the replica's merge.
	taskMerge
	// taskCheck looks whether images and replica are as they were left.
	taskCheck
	// taskLook looks at the images alone, beside another task.
	taskLook
	// taskCycle sends what has changed since the acked cut.
	taskCycle
)

// due is when what happens by itself is to happen again.
type due struct{ check, cycle time.Time }

// next is what a record asks for at now, as a pure function of what was saved: after a restart it is what goes on.
// wake is when to ask again; zero when only a change can alter the answer.
func next(r Record, now time.Time, at due) (todo task, wake time.Time) {
	if !r.Prepared || r.Superseded != nil {
		return taskNone, time.Time{}
	}
	if len(r.Abandoned) > 0 {
		return taskAbandon, time.Time{}
	}
	active := r.Active()
	if active != nil && active.awaitsMerge() {
		return taskMerge, time.Time{}
	}
	if r.Suspension != nil {
		if r.Delta != nil {
			return taskCycle, time.Time{} // what became of it is to be known
		}
		return taskNone, time.Time{}
	}
	if active != nil && (active.State != replication.ResyncScheduled || !now.Before(active.StartTime)) {
		if opens := active.restsUntil(r.Spec.AutoResync, now); opens.After(now) {
			return taskNone, opens
		}
		return taskTransfer, time.Time{}
	}
	if active != nil {
		wake = active.StartTime
	}
	if r.State() != replication.Replicating {
		return taskNone, earlier(wake, r.autoResyncAt(now))
	}
	again, todo := at.check, taskCheck
	if r.Tracked() {
		again, todo = at.cycle, taskCycle
	}
	if !now.Before(again) {
		return todo, wake
	}
	return taskNone, earlier(wake, again)
}

// earlier is the first of two times, of which a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
