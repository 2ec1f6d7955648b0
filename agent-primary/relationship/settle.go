package relationship

import (
	"context"
	"errors"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// commit asks the replica to commit what the record calls outstanding. An answer that did not come leaves it in
// doubt; the next attempt asks what became of it.
func (w *worker) commit(ctx context.Context) error {
	w.activity(replication.Committing)
	active := w.owner.record().Active()
	commit := resync.Commit{Transfer: active.Transfer, Lineage: active.Lineage, Cut: active.Cut, CutTime: active.CutTime}
	for _, disk := range active.Disks {
		commit.Roots = append(commit.Roots, resync.DiskRoot{
			Disk: disk.ID, Root: disk.Root, Shipment: disk.Shipment, ShipmentRoot: disk.ShipmentRoot,
		})
	}
	_, err := w.replica.Transfers(active.Proof).Commit(ctx, commit)
	if err == nil {
		return w.committed(ctx)
	}
	if curable(err) {
		return err
	}
	// Refused for good: only the replica's record tells whether an earlier one took place.
	position, reconcileErr := w.position(ctx)
	if reconcileErr != nil {
		return reconcileErr
	}
	if verdict, _, _ := judge(w.owner.record(), position); verdict == adopt {
		return w.committed(ctx)
	}
	return err
}

// settle ends a commit in doubt by what the replica's record says.
func (w *worker) settle(ctx context.Context, verdict verdict, evidence string) error {
	switch verdict {
	case adopt:
		w.owner.log.Info("the commit took place, its answer was lost", "resync", w.of)
		return w.committed(ctx)
	case commitAgain:
		return w.commit(ctx)
	default:
		return failure.New(failure.Precondition, failure.ReasonReplicaRecord, "%s", evidence).On(w.owner.record().Name, "")
	}
}

func (w *worker) committed(ctx context.Context) error {
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.committed(now()) })
	return err
}

// How often the replica is asked how far its merge is: soon at first, then less often.
const (
	mergePollFirst = 250 * time.Millisecond
	mergePollMost  = 5 * time.Second
)

// follow waits for the replica's merge.
func (w *worker) follow(ctx context.Context) error {
	w.activity(replication.Merging)
	for wait := mergePollFirst; ; wait = min(2*wait, mergePollMost) {
		position, err := w.position(ctx)
		if errors.Is(err, errNoRecord) {
			return w.mergeLost(ctx, "", err)
		}
		if err != nil {
			return err
		}
		w.owner.live.change(func(l *Live) {
			l.Activity, l.Trouble, l.NextAttempt, l.Merge = replication.Merging, nil, time.Time{}, position.Disks
		})
		w.retry.Succeeded()
		if verdict, disk, evidence := judge(w.owner.record(), position); verdict == apart {
			return w.mergeLost(ctx, disk, errors.New(evidence))
		}
		if position.LayersToMerge == 0 {
			_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.done(now()) })
			return err
		}
		if err := w.mergeGoesOn(ctx, position.MergeProblem); err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// mergeGoesOn notes that layers wait for their merge, and what is in its way.
func (w *worker) mergeGoesOn(ctx context.Context, problem *MergeProblem) error {
	active := w.owner.record().Active()
	if active.State == replication.ResyncCommitted {
		if _, err := w.apply(ctx, Record.merging); err != nil {
			return err
		}
	}
	if active.Reason == reasonOf(problem) {
		return nil
	}
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.hindered(problem) })
	return err
}

// mergeLost ends a resync whose result the replica no longer has.
func (w *worker) mergeLost(ctx context.Context, disk string, evidence error) error {
	w.owner.log.Error("the replica lost what it had committed", "resync", w.of, "error", evidence)
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.lost(now(), disk, evidence) })
	return err
}

// abandon tells the replica to discard transfers that are not wanted any more.
func (w *worker) abandon(ctx context.Context) error {
	w.activity(replication.Connecting)
	record := w.owner.record()
	for _, transfer := range record.Abandoned {
		err := w.replica.Transfers(0).Abort(ctx, transfer)
		if err != nil && (curable(err) || ctx.Err() != nil) {
			return err
		}
		if err != nil {
			w.owner.log.Warn("the replica did not discard a transfer", "transfer", transfer, "error", err)
		}
		if _, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.aborted(transfer) }); err != nil {
			return err
		}
	}
	return nil
}
