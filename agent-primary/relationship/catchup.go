package relationship

import (
	"context"
	"errors"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/event"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// catchUp ships what the machine wrote while the pass went over its disks, in rounds and then in one cut over all of
// them, and commits that cut.
func (w *worker) catchUp(ctx context.Context, disks *opened, compared resync.Outcome) error {
	record, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.catchingUp(w.figures()) })
	if err != nil {
		return err
	}
	w.activity(replication.CatchingUp)
	fault.Hit("resync-catching-up")
	active, cut := record.Active(), replication.NewID()
	sessions := make([]uint64, len(compared.Disks))
	for i, disk := range compared.Disks {
		sessions[i] = disk.Session
	}
	peer := w.replica.Transfers(active.Proof)
	shipped, err := w.owner.config.Ship(ctx, peer, w.shipping(ctx, disks, active.Transfer, cut, active.Proof, sessions))
	if err != nil {
		return err
	}
	_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r.commit(now(), compared, w.figures(), cut, &shipped)
	})
	if err == nil {
		fault.Hit("resync-before-commit")
		err = w.commit(ctx)
	}
	if err != nil {
		// A commit in doubt leaves its marks: what the cut held is sent once more.
		return errors.Join(err, shipped.Epoch.Abort())
	}
	w.owner.live.change(func(l *Live) { l.InStep, l.Churn = shipped.CutTime, nil })
	return errors.Join(shipped.Epoch.Ack(), disks.follow(w.owner.record()))
}

// catchingUp notes that the pass is done.
func (r Record) catchingUp(figures []resync.Figures) (Record, []event.Event, error) {
	if active := r.Active(); active != nil && active.State == replication.ResyncCatchingUp {
		return r, nil, nil
	}
	r, err := r.advance(replication.ResyncCatchingUp)
	if err != nil {
		return r, nil, err
	}
	r.saveFigures(figures)
	r.Resync.Reason = ""
	return r, nil, nil
}

// follow names the acked lineage as what the logs follow, where they follow the cut of the resync that made it.
func (o *opened) follow(r Record) error {
	if r.State() != replication.Replicating || r.Resync == nil {
		return nil
	}
	behind := false
	for i, d := range o.disks {
		switch baseline := d.Baseline(); {
		case d.Loss().Cause != hrl.None:
			return nil
		case baseline == r.Lineage:
		case baseline == r.Resync.Disks[i].Cut.Since:
			behind = true
		default:
			return nil
		}
	}
	if !behind {
		return nil
	}
	return o.group.Follow(r.Lineage)
}

// marksOnly says whether a disk of the resync to begin is in step but for what its log has marked: another disk is the
// cause of the resync, and the disk's log has been exact since the acked lineage.
func (r Record) marksOnly(index int, loss hrl.Loss) bool {
	return r.Active().Kind == replication.KindResync && loss.Cause == hrl.None && r.Lineage != "" && !r.Active().Force &&
		oneDisk[r.Cause] && r.CauseDisk != "" && r.CauseDisk != r.Disks[index].ID
}

// oneDisk are causes that say nothing of the VM's other disks.
var oneDisk = map[replication.Cause]bool{
	replication.CauseImageModified: true, replication.CauseHRLWriteFailed: true, replication.CauseTrackingLost: true,
}

// marksAreLost says whether a disk whose marks were to be sent has lost them: the resync cannot go on with it.
func (r Record) marksAreLost(changed map[int]tracking.Cut) bool {
	for i := range changed {
		if r.Active().Disks[i].MarksOnly {
			return true
		}
	}
	return false
}
