package relationship

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// errSuperseded is answered to a worker that was told to stop: what it wants to change is no longer its to change.
var errSuperseded = errors.New("the task was superseded")

// owner is the one goroutine that changes a VM's record.
type owner struct {
	config *Config
	log    *slog.Logger
	// saved is the record as it was last persisted; only the owner stores.
	saved atomic.Pointer[Record]
	live  live
	// machine is the VM's disks as they are tracked.
	machine machine
	// changes are the transitions asked for; ended is closed when nobody takes them any more.
	changes chan change
	ended   chan struct{}

	// What follows is the owner's alone. looker looks at the images while the worker is at something else.
	worker, looker *worker
	// version counts the changes made; notBefore holds back a task that ended and changed nothing.
	version   uint64
	notBefore time.Time
	checkAt   time.Time
	// cycleAt is when the next cycle is due by cycleEvery, the interval.
	cycleAt    time.Time
	cycleEvery time.Duration
	keptAt     time.Time
	// frozen counts those who want no task to run. erased ends the owner.
	frozen int
	erased bool
}

// change is a transition asked for.
type change struct {
	// transition makes the next record; it runs within the transaction.
	transition func(Record) (Record, []event.Event, error)
	// request makes the change happen once though it is asked for again; answer is what is kept for it.
	request state.Request
	answer  func(Record) []byte
	// worker is the one that asks; nil for an operator.
	worker *worker
	// freeze stops the present task and starts no other; thaw ends that; erase forgets the VM.
	freeze, thaw, erase bool
	reply               chan<- answered
}

type answered struct {
	record Record
	answer []byte
	err    error
}

func newOwner(config *Config, r Record) *owner {
	o := &owner{
		config: config, log: config.Log.With("vm", r.Name),
		changes: make(chan change), ended: make(chan struct{}),
	}
	o.machine.owner = o
	o.live.now.Activity = replication.Idle
	if active := r.Active(); active != nil && active.running() && r.Suspension == nil {
		o.live.now.interrupted = active.ID
	}
	o.saved.Store(&r)
	return o
}

// record is the present one. It must not be changed.
func (o *owner) record() Record { return *o.saved.Load() }

// activeFigures are those of a record's active resync.
func (o *owner) activeFigures(r Record) []resync.Figures {
	if r.Active() == nil {
		return nil
	}
	return o.live.figures(r.Active().ID)
}

// reconciled is when the replica was last found in step.
func (o *owner) reconciled() time.Time { return o.live.show().reconciled }

// apply asks the owner for a change and waits for it.
func (o *owner) apply(ctx context.Context, c change) (Record, []byte, error) {
	reply := make(chan answered, 1)
	c.reply = reply
	select {
	case o.changes <- c:
	case <-ctx.Done():
		return Record{}, nil, context.Cause(ctx)
	case <-o.ended:
		return Record{}, nil, o.gone()
	}
	a := <-reply
	return a.record, a.answer, a.err
}

func (o *owner) gone() error {
	return failure.New(failure.Cancelled, failure.ReasonShuttingDown, "the agent is shutting down or the VM was removed").
		On(o.record().Name, "")
}

// run is the owner's life.
func (o *owner) run(ctx context.Context) {
	defer close(o.ended)
	defer o.settle()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !o.erased {
		timer.Reset(o.steer(ctx))
		done, looked := o.worker.ended(), o.looker.ended()
		select {
		case <-ctx.Done():
			return
		case c := <-o.changes:
			c.reply <- o.handle(c)
		case <-done:
			o.reap()
		case <-looked:
			o.reapLooker()
		case <-timer.C:
			if o.worker != nil && o.worker.todo == taskTransfer {
				o.live.sample(time.Now())
				o.keep(time.Now())
			}
		}
	}
}

// Ticks of an owner that has work, of one whose disks are open, and of one that has neither.
const (
	busyTick = time.Second
	openTick = 5 * time.Second
	idleTick = time.Hour
)

// steer stops or starts the worker so that it does what the record asks for, and answers when to look again.
func (o *owner) steer(ctx context.Context) time.Duration {
	o.judgeMachine()
	o.startByPolicy(time.Now())
	now, record := time.Now(), o.record()
	if every := record.Spec.CycleInterval(); every != o.cycleEvery && !o.cycleAt.IsZero() {
		o.schedule(record, now) // the interval was changed, and holds at once
	}
	todo, wake := next(record, now, due{check: o.checkAt, cycle: o.cycleAt})
	o.showNextCycle(record, todo)
	if o.frozen > 0 {
		todo, wake = taskNone, time.Time{}
	}
	if o.worker != nil {
		if !o.worker.is(todo, record) {
			o.worker.cancel()
		}
		o.look(ctx, now, record)
		return busyTick
	}
	if todo != taskNone && now.Before(o.notBefore) {
		return o.notBefore.Sub(now)
	}
	if todo != taskNone {
		o.worker = startWorker(ctx, o, todo)
		return busyTick
	}
	wait := idleTick
	if o.machine.isOpen() {
		wait = openTick
	}
	if wake.IsZero() {
		return wait
	}
	return min(wait, wake.Sub(now))
}

// schedule finds when the next cycle is due after the one that was due last at since.
func (o *owner) schedule(record Record, since time.Time) {
	o.cycleEvery = record.Spec.CycleInterval()
	o.cycleAt = schedule.NextCycle(schedule.Boundary(string(record.UID), since, o.cycleEvery), time.Now(), o.cycleEvery)
}

// How long a task that ended without changing anything is held back, by whether it failed.
const (
	heldBack       = time.Second
	heldBackFailed = 30 * time.Second
)

// reap takes leave of a worker that has ended.
func (o *owner) reap() {
	w := o.worker
	o.worker = nil
	o.live.rest()
	if w.todo == taskCheck || w.todo == taskCycle {
		o.checkAt = time.Now().Add(o.checkWait())
	}
	if w.todo == taskCycle {
		o.schedule(o.record(), w.began)
	}
	o.live.change(func(l *Live) {
		l.Activity, l.Waiting, l.NextAttempt = replication.Idle, false, time.Time{}
		switch {
		case w.todo == taskCycle && w.err != nil:
			l.Trouble, l.TroubleSince = failure.Find(w.err), time.Now()
		case w.todo != taskCheck && w.todo != taskCycle:
			l.Trouble, l.Attempts = nil, 0
		}
	})
	if w.err != nil {
		o.log.Error("a task failed", "task", w.todo.String(), "error", w.err)
		o.notBefore = time.Now().Add(heldBackFailed)
	} else if w.version == o.version {
		o.notBefore = time.Now().Add(heldBack)
	}
}

// checkWait is how long after a check the next one is due: soon while the replica is in trouble, so that the health is
// not bad for long once it is not.
func (o *owner) checkWait() time.Duration {
	if o.live.show().Trouble == nil {
		return o.config.CheckInterval
	}
	return min(o.config.CheckInterval, operatorWait)
}

// settle stops the worker and saves how far it came.
func (o *owner) settle() {
	if o.worker != nil {
		o.worker.cancel()
		<-o.worker.done
		o.worker = nil
	}
	o.dismissLooker()
	o.saveProgress()
	o.machine.shut()
}

// handle makes one change: in the transaction first, in memory when that is durable.
func (o *owner) handle(c change) answered {
	if c.worker != nil && (c.worker != o.worker && c.worker != o.looker || c.worker.stopped()) {
		return answered{err: errSuperseded}
	}
	switch {
	case c.thaw:
		o.frozen--
		return answered{record: o.record()}
	case c.freeze:
		o.frozen++
		if o.worker != nil {
			o.worker.cancel()
			<-o.worker.done
			o.reap()
		}
		o.dismissLooker()
		return answered{record: o.record()}
	}
	return o.persist(c)
}
