package relationship

import (
	"context"
	"errors"
	"time"

	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// worker does one task for an owner, on a goroutine that the owner waits for.
type worker struct {
	owner   *owner
	replica Replica
	todo    task
	of      replication.ID // the resync that it is about; empty for none
	address string         // of the replica
	version uint64         // the owner's when it was started
	began   time.Time
	cancel  context.CancelFunc
	stop    <-chan struct{} // closed once it was told to stop
	done    chan struct{}
	err     error // valid once done is closed

	// What follows is its goroutine's alone.
	retry     *schedule.Retry
	progress  int64 // what was durable when an attempt last failed
	announced bool  // that the present failures are over
}

var taskNames = [...]string{"none", "abandon", "transfer", "merge", "check", "look", "cycle"}

func (t task) String() string { return taskNames[t] }

func startWorker(ctx context.Context, o *owner, todo task) *worker {
	record := o.record()
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{
		owner: o, todo: todo, of: about(todo, record), address: record.Spec.ReplicaAddress, version: o.version,
		began:   time.Now(),
		replica: o.config.Replicas.At(record.Spec.ReplicaAddress, Identity{VM: record.Name, UID: record.UID, Term: record.Term}),
		cancel:  cancel, stop: ctx.Done(), done: make(chan struct{}), retry: schedule.NewRetry(nil),
	}
	if todo != taskCheck && todo != taskLook && todo != taskCycle { // what a check met is for the next check to end; this task tells its own troubles
		o.live.change(func(l *Live) { l.Trouble, l.Attempts = nil, 0 })
	}
	go func() {
		defer close(w.done)
		defer cancel()
		w.err = w.run(ctx)
	}()
	return w
}

// about is the resync that a task is for.
func about(todo task, r Record) replication.ID {
	if active := r.Active(); active != nil && (todo == taskTransfer || todo == taskMerge) {
		return active.ID
	}
	return ""
}

// is says whether the worker does what the record asks for, at the address where the replica is.
func (w *worker) is(todo task, r Record) bool {
	return w.todo == todo && w.of == about(todo, r) && w.address == r.Spec.ReplicaAddress
}

// ended is closed once the worker has ended; nil for none.
func (w *worker) ended() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.done
}

func (w *worker) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// run does the task. nil when it is done or was stopped; an error when it could not be done and nothing says so
// in the record.
func (w *worker) run(ctx context.Context) error {
	var err error
	switch w.todo {
	case taskAbandon:
		err = w.retrying(ctx, w.abandon, nil)
	case taskTransfer:
		err = w.transfer(ctx)
	case taskMerge:
		err = w.retrying(ctx, w.follow, nil)
	case taskCheck:
		err = w.check(ctx)
	case taskLook:
		err = w.lookOnly(ctx)
	case taskCycle:
		err = w.cycle(ctx)
	}
	if refusedForGood(err) {
		_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) {
			return r.supersede(now(), failure.Find(err).Message)
		})
	}
	if w.stopped() || errors.Is(err, errSuperseded) {
		return nil
	}
	return err
}

// refusedForGood says whether the replica was failed over to, so that this primary must not send any more.
func refusedForGood(err error) bool {
	return hasReason(err, failure.ReasonFailedOver) || hasReason(err, failure.ReasonStaleTerm)
}

// apply makes a change on behalf of the worker.
func (w *worker) apply(ctx context.Context, transition func(Record) (Record, []event.Event, error)) (Record, error) {
	record, _, err := w.owner.apply(ctx, change{transition: transition, worker: w})
	return record, err
}

func (w *worker) activity(a replication.Activity) {
	w.owner.live.change(func(l *Live) { l.Activity = a })
}

// errAgain says that the attempt is to be repeated at once.
var errAgain = errors.New("again")

// retrying repeats once until it succeeds, fails for good or is stopped. Between failures that time cures it
// waits; failed, if there is one, is told of each.
func (w *worker) retrying(
	ctx context.Context, once func(context.Context) error, failed func(context.Context, error, time.Duration) error,
) error {
	for {
		err := once(ctx)
		switch {
		case errors.Is(err, errAgain):
			continue
		case err == nil || ctx.Err() != nil || errors.Is(err, errSuperseded) || !curable(err):
			return err
		}
		wait := w.backOff(err)
		if failed != nil {
			if err := failed(ctx, err, wait); err != nil {
				return err
			}
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// curable says whether waiting may help: what failure calls Retryable, an image that a machine has open, and
// another agent where the replica is to be.
func curable(err error) bool {
	return failure.Retryable(err) || hasReason(err, failure.ReasonImageInUse) || hasReason(err, failure.ReasonWrongRole)
}

// operatorWait is the longest wait for what only an operator mends: he looks whether that helped.
const operatorWait = 10 * time.Second

// backOff is how long to wait for the next attempt, for everybody to see.
func (w *worker) backOff(err error) time.Duration {
	w.noteProgress()
	now := time.Now()
	at := w.retry.Failed(now)
	if soon := now.Add(operatorWait); hasReason(err, failure.ReasonWrongRole) && at.After(soon) {
		at = soon
	}
	attempts, since := w.retry.Failures()
	w.announced = false
	w.owner.live.change(func(l *Live) {
		l.Activity, l.Trouble, l.NextAttempt = replication.BackingOff, failure.Find(err), at
		l.Attempts, l.TroubleSince = attempts, since
	})
	if attempts == 1 {
		w.owner.log.Warn("the task waits and tries again", "task", w.todo.String(), "error", err)
	}
	return at.Sub(now)
}

func hasClass(err error, class failure.Class) bool {
	return err != nil && failure.Find(err).Class == class
}

func hasReason(err error, reason string) bool {
	return err != nil && failure.Find(err).Reason == reason
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
