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
	record := w.owner.record()
	missing := map[string]*failure.Error{}
	for _, disk := range record.Disks {
		stamp, err := w.owner.config.Images.Stamp(disk.Path)
		if err != nil {
			missing[disk.ID] = failure.Find(err)
			continue
		}
		if difference := disk.Stamp.Difference(stamp); difference != "" {
			evidence := "the image " + disk.Path + " changed: " + difference
			_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.modified(now(), disk.ID, evidence) })
			return err
		}
	}
	w.owner.live.change(func(l *Live) {
		if len(l.Missing) == 0 {
			l.MissingSince = time.Now()
		}
		l.Missing = missing
	})
	if err := w.checkReplica(ctx, record); err != nil || w.stopped() {
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
		w.inTrouble(err)
		return nil
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

// inTrouble shows why the replica did not answer, since when.
func (w *worker) inTrouble(err error) {
	if w.stopped() {
		return
	}
	w.owner.live.change(func(l *Live) {
		if l.Trouble == nil {
			l.TroubleSince = time.Now()
		}
		l.Trouble, l.reconciled = failure.Find(err), time.Time{}
		l.Attempts++
	})
}
