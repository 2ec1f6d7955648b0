package relationship

import (
	"context"
	"errors"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
)

// check looks whether the images are still those that were proven, and from time to time whether the replica
// still has what it acknowledged. It opens nothing and locks nothing.
func (w *worker) check(ctx context.Context) error {
	if same, err := w.lookAtImages(ctx); err != nil || !same {
		return err
	}
	if err := w.checkReplica(ctx, w.owner.record()); err != nil || w.stopped() {
		return err
	}
	w.looked()
	return nil
}

// looked notes that the images, and with a check the replica, were looked at.
func (w *worker) looked() {
	w.owner.live.change(func(l *Live) { l.looked = true })
}

// checkReplica asks for the replica's record when the last answer is old, or did not come.
func (w *worker) checkReplica(ctx context.Context, record Record) error {
	if time.Since(w.owner.reconciled()) < w.owner.config.ReconcileInterval {
		return nil
	}
	position, err := w.position(ctx)
	gone := errors.Is(err, errNoRecord)
	if err != nil && !gone {
		return w.inTrouble(ctx, err)
	}
	if err := w.outOfTrouble(ctx); err != nil {
		return err
	}
	w.owner.live.change(func(l *Live) { l.Trouble, l.Attempts, l.reconciled = nil, 0, time.Now() })
	verdict, disk, evidence := judge(record, position)
	switch {
	case gone:
	case verdict == inStep:
		return nil
	default:
		err = errors.New(evidence)
	}
	_, applyErr := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.mismatched(now(), disk, err) })
	return applyErr
}

// inTrouble shows why the replica did not answer, since when, and tells of its loss once.
func (w *worker) inTrouble(ctx context.Context, err error) error {
	if w.stopped() {
		return nil
	}
	found, first := failure.Find(err), false
	w.owner.live.change(func(l *Live) {
		if first = l.Trouble == nil; first {
			l.TroubleSince = time.Now()
		}
		l.Trouble, l.reconciled = found, time.Time{}
		l.Attempts++
	})
	if !first || found.Class != failure.Unreachable {
		return nil
	}
	_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r, []event.Event{event.ConnectionLost(r.Name, r.Spec.ReplicaAddress, found.Message)}, nil
	})
	return err
}

// outOfTrouble tells that a replica which was away answers again.
func (w *worker) outOfTrouble(ctx context.Context) error {
	before := w.owner.live.show()
	if before.Trouble == nil || before.Trouble.Class != failure.Unreachable {
		return nil
	}
	away := time.Since(before.TroubleSince).Round(time.Second)
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r, []event.Event{event.ConnectionRecovered(r.Name, r.Spec.ReplicaAddress, before.Attempts, away)}, nil
	})
	return err
}
