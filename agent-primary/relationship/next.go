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
)

// next is what a record asks for at now, as a pure function of what was saved: after a restart it is what goes on.
// checkAt is when the next check is due. wake is when to ask again; zero when only a change can alter the answer.
func next(r Record, now, checkAt time.Time) (todo task, wake time.Time) {
	if !r.Prepared {
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
		return taskNone, time.Time{}
	}
	if active != nil && (active.State != replication.ResyncScheduled || !now.Before(active.StartTime)) {
		return taskTransfer, time.Time{}
	}
	if active != nil {
		wake = active.StartTime
	}
	if r.State() != replication.Replicating {
		return taskNone, wake
	}
	if !now.Before(checkAt) {
		return taskCheck, wake
	}
	if wake.IsZero() || checkAt.Before(wake) {
		wake = checkAt
	}
	return taskNone, wake
}
