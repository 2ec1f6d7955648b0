package relationship

import (
	"context"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// look starts the looker when the images are to be looked at and the worker is at something that may take for ever:
// a replica that is away, or a merge without room, must not hide that an image is not the proven one any more.
func (o *owner) look(ctx context.Context, now time.Time, record Record) {
	if o.looker != nil || o.worker.todo == taskCheck || record.State() != replication.Replicating || now.Before(o.checkAt) {
		return
	}
	o.looker = startWorker(ctx, o, taskLook)
}

// reapLooker takes leave of a looker that has ended.
func (o *owner) reapLooker() {
	if err := o.looker.err; err != nil {
		o.log.Error("the images were not looked at", "error", err)
	}
	o.looker = nil
	o.checkAt = time.Now().Add(o.config.CheckInterval)
}

// dismissLooker stops the looker and waits for it.
func (o *owner) dismissLooker() {
	if o.looker == nil {
		return
	}
	o.looker.cancel()
	<-o.looker.done
	o.reapLooker()
}

// lookAtImages looks whether the images are still those that were proven; same says that none is known to be another.
// It opens nothing and locks nothing.
func (w *worker) lookAtImages(ctx context.Context) (same bool, err error) {
	record := w.owner.record()
	missing := map[string]*failure.Error{}
	if record.Tracked() && w.owner.machine.isOpen() {
		return true, nil // the logs tell
	}
	for i, disk := range record.Disks {
		stamp, err := w.owner.config.Images.Stamp(record.Spec.Disks[i])
		if err != nil {
			missing[disk.ID] = failure.Find(err)
			continue
		}
		known := disk.known()
		if known.Device == 0 && disk.Log != nil {
			continue // the log judges it when it is opened
		}
		if difference := known.Difference(stamp); difference != "" {
			evidence := "the image " + disk.Path + " changed: " + difference
			_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
				return r.seenModified(now(), i, known, stamp, evidence)
			})
			return false, err
		}
	}
	w.owner.live.change(func(l *Live) {
		if len(l.Missing) == 0 {
			l.MissingSince = time.Now()
		}
		l.Missing = missing
	})
	return true, nil
}

// known is the stamp that the image has unless somebody changed it: at the acked cut, or when its log was closed.
func (d Disk) known() disk.Stamp {
	if d.Log != nil {
		return d.ClosedStamp
	}
	return d.Stamp
}

// seenModified is modified, unless what the image was compared with is not the proven stamp any more.
func (r Record) seenModified(now time.Time, index int, proven, found disk.Stamp, evidence string) (Record, []event.Event, error) {
	if r.State() != replication.Replicating || r.Disks[index].known() != proven {
		return r, nil, nil
	}
	return r.modified(now, changeOf(proven, found), r.Disks[index].ID, evidence)
}

// lookOnly is a looker's task.
func (w *worker) lookOnly(ctx context.Context) error {
	same, err := w.lookAtImages(ctx)
	if err == nil && same && !w.stopped() {
		w.looked()
	}
	return err
}
