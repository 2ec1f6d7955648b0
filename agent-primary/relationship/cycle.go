package relationship

import (
	"context"
	"errors"
	"slices"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/schedule"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/fault"
	"vmreplica/internal/replication"
)

// cycle sends what has changed since the acked cut, however many attempts that takes. With nothing to send it is a check.
func (w *worker) cycle(ctx context.Context) error {
	err := w.retrying(ctx, w.attemptCycle, w.cycleInterrupted)
	if err == nil || ctx.Err() != nil || errors.Is(err, errSuperseded) {
		return err
	}
	_, applyErr := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.cycleFailed(failure.Find(err)) })
	return errors.Join(err, applyErr)
}

// cycleInterrupted tells once that the replica cannot be reached; its changes accumulate meanwhile.
func (w *worker) cycleInterrupted(ctx context.Context, cause error, _ time.Duration) error {
	if attempts, _ := w.retry.Failures(); attempts > 1 {
		return nil
	}
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		found := failure.Find(cause)
		if found.Class != failure.Unreachable {
			return r, []event.Event{event.CycleFailed(r.Name, found.Disk, found.Reason, fullStop(sentence(found)))}, nil
		}
		r = r.clone()
		r.Statistics.NetworkFailures++
		return r, []event.Event{event.ConnectionLost(r.Name, r.Spec.ReplicaAddress, found.Message)}, nil
	})
	return err
}

// attemptCycle is one attempt of a cycle.
func (w *worker) attemptCycle(ctx context.Context) error {
	w.askMonitor(ctx)
	record := w.owner.record()
	if record.Delta == nil && !w.owner.hasPending(record) {
		return w.idleCycle(ctx)
	}
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	w.activity(replication.Connecting)
	hello, err := w.replica.Hello(ctx)
	if err != nil {
		return err
	}
	position, err := w.position(ctx)
	if err != nil && !errors.Is(err, errNoRecord) {
		return err
	}
	if err := w.cycleConnected(ctx); err != nil {
		return err
	}
	if again, err := w.settleDelta(ctx, position, err, hello.Proof); again || err != nil {
		return err
	}
	disks, done, err := w.owner.machine.acquire(ctx)
	if err != nil {
		return err
	}
	defer done()
	if record = w.owner.record(); record.Delta == nil && disks.group.Figures().Accumulated() == 0 {
		return w.idleCycle(ctx)
	}
	return w.ship(ctx, disks, position, hello.Proof)
}

// cycleConnected ends the trouble of earlier attempts, if there was any, for everybody to see.
func (w *worker) cycleConnected(ctx context.Context) error {
	attempts, since := w.retry.Failures()
	w.owner.live.change(func(l *Live) {
		l.Trouble, l.Attempts, l.NextAttempt, l.reconciled = nil, 0, time.Time{}, time.Now()
	})
	if attempts == 0 || w.announced {
		return nil
	}
	w.announced = true
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		away := time.Since(since).Round(time.Second)
		return r, []event.Event{event.ConnectionRecovered(r.Name, r.Spec.ReplicaAddress, attempts, away)}, nil
	})
	return err
}

// idleCycle notes that the replica lacks nothing, and checks what a check would.
func (w *worker) idleCycle(ctx context.Context) error {
	if err := w.check(ctx); err != nil || w.stopped() {
		return err
	}
	if record := w.owner.record(); record.State() == replication.Replicating && !w.owner.hasPending(record) {
		w.owner.live.change(func(l *Live) { l.InStep = now() })
	}
	return nil
}

// settleDelta decides by the replica's record what became of an outstanding delta; ended says that there is nothing more
// to do in this attempt.
func (w *worker) settleDelta(ctx context.Context, position Position, gone error, proof blockdiff.Algorithm) (ended bool, err error) {
	record := w.owner.record()
	verdict, disk, evidence := judge(record, position)
	switch {
	case gone != nil:
		_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.mismatched(now(), disk, gone) })
		return true, err
	case verdict == adopt:
		return true, w.adoptDelta(ctx, record, position, proof)
	case verdict == apart:
		_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) {
			return r.mismatched(now(), disk, errors.New(evidence))
		})
		return true, err
	case record.Suspension != nil:
		return true, w.dropDelta(ctx, record)
	}
	return false, nil
}

// adoptDelta takes the outstanding cut for acked: its commit took place and the answer was lost. What it held is marked
// still and is sent once more.
func (w *worker) adoptDelta(ctx context.Context, record Record, position Position, proof blockdiff.Algorithm) error {
	roots := make([]blockdiff.Hash, len(record.Disks))
	for i, d := range record.Disks {
		at := slices.IndexFunc(position.Disks, func(p PositionDisk) bool { return p.ID == d.ID })
		if at < 0 {
			return failure.New(failure.Corrupt, failure.ReasonProtocol, "the replica names no root of the disk").On(record.Name, d.ID)
		}
		root, err := parseRoot(position.Disks[at].Root)
		if err != nil {
			return failure.New(failure.Corrupt, failure.ReasonProtocol, "the replica's root: %w", err).On(record.Name, d.ID)
		}
		roots[i] = root
	}
	w.owner.log.Info("the commit of a cycle took place, its answer was lost", "cut", record.Delta.Cut.Short())
	adopted := Cycle{Cut: record.Delta.Cut, Began: record.Delta.Began, CutTime: record.Delta.Began, End: now()}
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.cycled(adopted, 0, proof, roots) })
	if err != nil {
		return err
	}
	return errAgain
}

// dropDelta discards what the replica has received of an outstanding delta.
func (w *worker) dropDelta(ctx context.Context, record Record) error {
	if err := w.replica.Transfers(0).Abort(ctx, record.Delta.Transfer); err != nil {
		return err
	}
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.settled() })
	return err
}

// ship sends one delta and has it committed.
func (w *worker) ship(ctx context.Context, disks *opened, position Position, proof blockdiff.Algorithm) error {
	if err := errors.Join(w.noteLosses(ctx, disks), disks.follow(w.owner.record())); err != nil {
		return err
	}
	began, transfer, cut := now(), replication.NewID(), replication.NewID()
	record, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.beginDelta(began, transfer, cut) })
	if err != nil {
		return err
	}
	w.activity(replication.Sending)
	fault.Hit("delta-begun")
	peer := w.replica.Transfers(proof)
	cursors, err := peer.Begin(ctx, resync.Begin{
		Transfer: transfer, Kind: replication.KindDelta, Disks: record.geometries(), Lineage: record.Lineage, Cut: record.Cut,
		Restart: position.Transfer != "", RecoveryPoints: record.Spec.RecoveryPoints,
	})
	if err != nil {
		return err
	}
	if err := w.connected(ctx); err != nil {
		return err
	}
	shipped, err := w.owner.config.Ship(ctx, peer, w.shipping(ctx, disks, transfer, cut, proof, sessionsOf(cursors)))
	if err != nil {
		return err
	}
	return w.commitDelta(ctx, record, peer, shipped, proof, began)
}

// commitDelta has a shipped cut committed. Whatever happens to the answer, the epoch ends here: a commit in doubt leaves
// its marks, and what it held is sent once more.
func (w *worker) commitDelta(ctx context.Context, record Record, peer Transfers, shipped ship.Outcome, proof blockdiff.Algorithm,
	began time.Time,
) error {
	done := Cycle{Cut: record.Delta.Cut, Began: began, CutTime: shipped.CutTime}
	commit, roots, err := record.deltaCommit(shipped, proof)
	if err == nil {
		fault.Hit("delta-before-commit")
		_, err = peer.Commit(ctx, commit)
	}
	if err != nil {
		return errors.Join(err, shipped.Epoch.Abort())
	}
	fault.Hit("delta-committed")
	for _, disk := range shipped.Disks {
		done.SentBytes += disk.Bytes
	}
	done.End, done.WireBytes = now(), w.owner.live.shipping().WireBytes
	interval := record.Spec.CycleInterval()
	missed := schedule.Missed(schedule.Boundary(string(record.UID), began, interval), done.End, interval)
	if _, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.cycled(done, missed, proof, roots) }); err != nil {
		return errors.Join(err, shipped.Epoch.Abort())
	}
	fault.Hit("delta-acked")
	w.owner.live.change(func(l *Live) { l.InStep, l.Churn = done.CutTime, nil })
	return shipped.Epoch.Ack()
}

// deltaCommit names what the replica must hold, and what its roots are then.
func (r Record) deltaCommit(shipped ship.Outcome, proof blockdiff.Algorithm) (resync.Commit, []blockdiff.Hash, error) {
	commit := resync.Commit{Transfer: r.Delta.Transfer, Lineage: r.Lineage, Cut: r.Delta.Cut, CutTime: shipped.CutTime}
	prover, err := blockdiff.NewProver(proof)
	if err != nil {
		return commit, nil, failure.New(failure.Internal, failure.ReasonInternal, "%w", err)
	}
	var roots []blockdiff.Hash
	for i, disk := range shipped.Disks {
		root, err := parseRoot(r.Disks[i].Root)
		if err != nil {
			return commit, nil, failure.New(failure.Internal, failure.ReasonInternal, "the acked root: %w", err).On(r.Name, disk.ID)
		}
		commit.Roots = append(commit.Roots, resync.DiskRoot{
			Disk: disk.ID, Root: root, Shipment: r.Delta.Cut, ShipmentRoot: disk.Root,
		})
		roots = append(roots, prover.Extend(root, disk.Root))
	}
	return commit, roots, nil
}

// noteLosses puts into the record what a log has lost; then there is nothing to be sent.
func (w *worker) noteLosses(ctx context.Context, disks *opened) error {
	for i, d := range disks.disks {
		loss := d.Loss()
		if loss.Cause == 0 {
			continue
		}
		if _, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.trackingLost(now(), i, loss) }); err != nil {
			return err
		}
		return errSuperseded
	}
	return nil
}

// shipping are the options of a shipment of all disks.
func (w *worker) shipping(ctx context.Context, disks *opened, transfer, cut replication.ID, proof blockdiff.Algorithm, sessions []uint64) ship.Options {
	options := ship.Options{
		Transfer: transfer, Cut: cut, Proof: proof, Group: disks.group, Limits: w.owner.config.ShipLimits,
		Progress: w.owner.live.ships(),
		Churn:    func(rates ship.Churn) { w.churns(ctx, rates) },
	}
	for i, d := range disks.disks {
		options.Disks = append(options.Disks, ship.Disk{ID: d.ID(), Session: sessions[i]})
	}
	return options
}

// churns shows that the machine writes faster than the link takes, and tells so once.
func (w *worker) churns(ctx context.Context, rates ship.Churn) {
	first, since := false, now()
	w.owner.live.change(func(l *Live) {
		if first = l.Churn == nil; !first {
			since = l.Churn.Since
		}
		l.Churn = &Churn{Churn: rates, Since: since}
	})
	if !first {
		return
	}
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r, []event.Event{event.ChurnExceedsLink(r.Name, rates.DirtyBytesPerSecond, rates.ShippedBytesPerSecond)}, nil
	})
	if err != nil && ctx.Err() == nil {
		w.owner.log.Warn("an event was not recorded", "error", err)
	}
}

func sessionsOf(cursors []resync.Cursor) []uint64 {
	sessions := make([]uint64, len(cursors))
	for i, cursor := range cursors {
		sessions[i] = cursor.Session
	}
	return sessions
}

// geometries are the disks as a transfer names them.
func (r Record) geometries() []resync.BeginDisk {
	geometries := make([]resync.BeginDisk, 0, len(r.Disks))
	for _, disk := range r.Disks {
		geometries = append(geometries, resync.BeginDisk{
			ID: disk.ID, SizeBytes: disk.SizeBytes, LogicalSectorSize: disk.LogicalSectorSize,
		})
	}
	return geometries
}
