package relationship

import (
	"context"
	"errors"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// abortPatience is how long a cancellation waits for the replica to have discarded the transfer before it answers.
const abortPatience = 3 * time.Second

// change makes one change for an operator.
func (m *Manager) change(ctx context.Context, vm string, c change) (*owner, []byte, error) {
	o, err := m.owner(vm)
	if err != nil {
		return nil, nil, err
	}
	_, answer, err := o.apply(ctx, c)
	return o, answer, failure.Locate(err, vm, "")
}

func (m *Manager) changeAndShow(ctx context.Context, vm string, c change) (View, error) {
	o, _, err := m.change(ctx, vm, c)
	if err != nil {
		return View{}, err
	}
	return o.view(), nil
}

// Suspend stops what is done for a VM; a running resync keeps its position.
func (m *Manager) Suspend(ctx context.Context, vm, reason string, request state.Request) (View, error) {
	o, err := m.owner(vm)
	if err != nil {
		return View{}, err
	}
	return m.changeAndShow(ctx, vm, change{request: request, transition: func(r Record) (Record, []event.Event, error) {
		return r.suspend(now(), reason, o.activeFigures(r))
	}})
}

// Resume lets a VM's replication go on.
func (m *Manager) Resume(ctx context.Context, vm string, request state.Request) (View, error) {
	return m.changeAndShow(ctx, vm, change{request: request, transition: Record.resume})
}

// Resynchronize is Resume, and a resync at a time: zero means now.
func (m *Manager) Resynchronize(ctx context.Context, vm string, at time.Time, request state.Request) (View, error) {
	return m.changeAndShow(ctx, vm, change{request: request, transition: func(r Record) (Record, []event.Event, error) {
		return r.resynchronize(now(), at)
	}})
}

// Update changes what was asked.
func (m *Manager) Update(ctx context.Context, vm string, asked Update, request state.Request) (View, error) {
	return m.changeAndShow(ctx, vm, change{request: request, transition: func(r Record) (Record, []event.Event, error) {
		return r.update(asked)
	}})
}

// ResetStatistics sets the counters to zero.
func (m *Manager) ResetStatistics(ctx context.Context, vm string, request state.Request) (View, error) {
	return m.changeAndShow(ctx, vm, change{request: request, transition: func(r Record) (Record, []event.Event, error) {
		return r.resetStatistics(now())
	}})
}

// Start starts a resync. The same request again answers the same resync.
func (m *Manager) Start(ctx context.Context, vm string, asked Start, request state.Request) (ResyncView, error) {
	_, answer, err := m.change(ctx, vm, change{
		request:    request,
		transition: func(r Record) (Record, []event.Event, error) { return r.start(now(), asked) },
		answer:     func(r Record) []byte { return []byte(r.Resync.ID) },
	})
	if err != nil {
		return ResyncView{}, err
	}
	return m.Resync(vm, replication.ID(answer))
}

// Cancel ends the resync that runs, or the one with that id. It answers when the replica has discarded what it
// had received; when the replica cannot be reached that follows later.
func (m *Manager) Cancel(ctx context.Context, vm string, id replication.ID, request state.Request) (ResyncView, error) {
	o, err := m.owner(vm)
	if err != nil {
		return ResyncView{}, err
	}
	_, answer, err := m.change(ctx, vm, change{
		request: request,
		transition: func(r Record) (Record, []event.Event, error) {
			if active := r.Active(); id != "" && (active == nil || active.ID != id) {
				return r, nil, failure.New(failure.Precondition, failure.ReasonWrongState, "resync %s is not running", id)
			}
			return r.cancel(now(), o.activeFigures(r))
		},
		answer: func(r Record) []byte { return []byte(r.Resync.ID) },
	})
	if err != nil {
		return ResyncView{}, err
	}
	if err := o.awaitAbandoned(ctx); err != nil {
		return ResyncView{}, err
	}
	return m.Resync(vm, replication.ID(answer))
}

// awaitAbandoned waits until nothing is left to be discarded on the replica, for a while.
func (o *owner) awaitAbandoned(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, abortPatience)
	defer cancel()
	for len(o.record().Abandoned) > 0 {
		if err := sleep(patience, 20*time.Millisecond); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		} else if err != nil {
			break
		}
	}
	return nil
}

// now is the time as records keep it.
func now() time.Time { return time.Now().UTC().Round(0) }
