package relationship

import (
	"context"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/internal/event"
)

// watched is the replica of an attempt, with what the relationship wants to know of it.
type watched struct {
	resync.Peer
	worker *worker
	resync *Resync
}

// Begin notes that the replica is there again.
func (p watched) Begin(ctx context.Context, begin resync.Begin) ([]resync.Cursor, error) {
	cursors, err := p.Peer.Begin(ctx, begin)
	if err != nil {
		return nil, err
	}
	if err := p.worker.connected(ctx); err != nil {
		return nil, err
	}
	return cursors, p.worker.takenUp(ctx)
}

// Open notes that a pass has begun again as asked.
func (p watched) Open(ctx context.Context, open resync.Open) (resync.Stream, resync.Opened, error) {
	stream, opened, err := p.Peer.Open(ctx, open)
	if err != nil || !open.Restart {
		return stream, opened, err
	}
	for i, disk := range p.resync.Disks {
		if disk.ID != open.Disk {
			continue
		}
		if _, err := p.worker.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.restarted(i) }); err != nil {
			stream.Close()
			return nil, opened, err
		}
	}
	return stream, opened, nil
}

// connected ends the trouble, if there was any.
func (w *worker) connected(ctx context.Context) error {
	attempts, _ := w.retry.Failures()
	if attempts == 0 || w.announced {
		return nil
	}
	w.announced = true
	w.owner.live.change(func(l *Live) { l.Trouble, l.NextAttempt = nil, time.Time{} })
	w.owner.live.rest()
	w.owner.log.Info("the resync goes on", "resync", w.of, "failed_attempts", attempts)
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.recovered(attempts) })
	return err
}

// takenUp tells once that a resync which ran when the agent ended goes on.
func (w *worker) takenUp(ctx context.Context) error {
	if w.owner.live.show().interrupted != w.of {
		return nil
	}
	w.owner.live.change(func(l *Live) { l.interrupted = "" })
	w.owner.log.Info("the resync goes on after the agent's start", "resync", w.of)
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r, []event.Event{naming(event.ResyncTakenUp(r.Name, kindWord(r.Resync.Kind)), r)}, nil
	})
	return err
}
