package relationship

import (
	"context"
	"errors"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/fault"
	"vmreplica/internal/replication"
)

// transfer brings the active resync to its commit, however many attempts that takes, or to its failure.
func (w *worker) transfer(ctx context.Context) error {
	err := w.retrying(ctx, w.attempt, w.interrupted)
	if err == nil || ctx.Err() != nil || errors.Is(err, errSuperseded) {
		return err
	}
	w.owner.log.Error("the resync failed", "resync", w.of, "error", err)
	_, applyErr := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r.fail(now(), err, w.figures())
	})
	return applyErr
}

func (w *worker) figures() []resync.Figures { return w.owner.live.figures(w.of) }

// interrupted saves an attempt's end.
func (w *worker) interrupted(ctx context.Context, cause error, wait time.Duration) error {
	figures := w.figures()
	_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.interrupted(cause, wait, figures) })
	return err
}

// noteProgress begins the backoff anew when more is durable than at the last failure.
func (w *worker) noteProgress() {
	var durable int64
	for _, disk := range w.figures() {
		durable += disk.DurableBytes
	}
	if durable > w.progress {
		w.retry.Succeeded()
	}
	w.progress = durable
}

// attempt is one: connect, ask, open, compare, commit.
func (w *worker) attempt(ctx context.Context) error {
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
	position, err := w.reconcile(ctx)
	if err != nil {
		return err
	}
	record := w.owner.record()
	active := record.Active()
	if active == nil { // cancelled meanwhile
		return errSuperseded
	}
	verdict, disk, evidence := judge(record, position)
	if active.State == replication.ResyncCommitting {
		return w.settle(ctx, verdict, evidence)
	}
	if active.Kind == replication.KindVerify && verdict == apart {
		return failure.New(failure.Precondition, failure.ReasonReplicaRecord, "%s", evidence).On(record.Name, disk)
	}
	sources, err := w.open(ctx, record)
	if err != nil {
		return err
	}
	defer sources.close(w.owner.log)
	if record, err = w.cut(ctx, hello, sources); err != nil {
		return err
	}
	return w.compare(ctx, record, position, sources)
}

// slot waits until the agent may transfer one more VM.
func (w *worker) slot(ctx context.Context) (release func(), err error) {
	waiting := func(is bool) { w.owner.live.change(func(l *Live) { l.Waiting = is }) }
	waiting(true)
	defer waiting(false)
	return w.owner.config.Slots.Acquire(ctx)
}

// errNoRecord is a replica that does not know the VM: somebody took its copy over, or its state is lost.
var errNoRecord = errors.New("the replica has no record of this VM")

// position asks for the replica's record. That it has none no time cures: errNoRecord within a failure.
func (w *worker) position(ctx context.Context) (Position, error) {
	position, err := w.replica.Reconcile(ctx, w.owner.record().Spec.RecoveryPoints)
	if err == nil {
		w.owner.live.change(func(l *Live) { l.MergeProblem = position.MergeProblem })
	}
	if !hasClass(err, failure.NotFound) {
		return position, err
	}
	name := w.owner.record().Name
	return position, failure.New(failure.Precondition, failure.ReasonReplicaRecord, "%w", errNoRecord).On(name, "").
		Try("If nobody else uses the disks there, only this prepares and overwrites them: vmreplica resync %s --force", name)
}

// reconcile asks for the replica's record. A replica that has none is prepared again where an operator has
// confirmed that, and only before the resync begins: what is there then may be somebody else's.
func (w *worker) reconcile(ctx context.Context) (Position, error) {
	position, err := w.position(ctx)
	record := w.owner.record()
	if !errors.Is(err, errNoRecord) || !record.Active().mayPrepare() {
		return position, err
	}
	preparation := Preparation{Disks: record.places(), UseExisting: true}
	_, err = w.replica.Prepare(ctx, preparation)
	if hasReason(err, failure.ReasonBaseMissing) {
		preparation.UseExisting = false
		_, err = w.replica.Prepare(ctx, preparation)
	}
	if err != nil {
		return position, err
	}
	if _, err := w.apply(ctx, Record.prepared); err != nil {
		return position, err
	}
	return w.position(ctx)
}

// mayPrepare says whether a replica without a record may be prepared for the resync.
func (s *Resync) mayPrepare() bool {
	return s != nil && s.Force && s.State == replication.ResyncScheduled && s.Kind != replication.KindVerify
}

// prepared uses up the operator's word that a replica without a record may be prepared.
func (r Record) prepared() (Record, []event.Event, error) {
	r = r.clone()
	r.Resync.Force = false
	return r, nil, nil
}

// places are what the replica makes place for.
func (r Record) places() []Place {
	var places []Place
	for i, disk := range r.Disks {
		geometry := resync.BeginDisk{ID: disk.ID, SizeBytes: disk.SizeBytes, LogicalSectorSize: disk.LogicalSectorSize}
		asked := r.Spec.Disks[i]
		places = append(places, Place{BeginDisk: geometry, Format: asked.BaseFormat(), Differencing: asked.Differencing})
	}
	return places
}

// cut begins the resync, or makes sure that what it has read still is what the images hold.
func (w *worker) cut(ctx context.Context, hello Hello, sources sources) (Record, error) {
	record := w.owner.record()
	if record.Active() == nil {
		return record, errSuperseded
	}
	if record.Active().State != replication.ResyncScheduled {
		return record, w.continuous(ctx, record, sources)
	}
	cuts, err := sources.cut(ctx, record)
	if err != nil {
		return record, err
	}
	if record.Active().Kind == replication.KindVerify {
		if err := w.verifiable(record, sources, cuts); err != nil {
			return record, err
		}
	}
	record, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) { return r.begin(now(), hello.Proof, cuts) })
	if err != nil {
		return record, err
	}
	fault.Hit("resync-begun")
	all := map[int]tracking.Cut{}
	for i, cut := range cuts {
		all[i] = cut
	}
	return record, sources.begin(ctx, all)
}

// verifiable refuses a verify that could only find what is known to differ.
func (w *worker) verifiable(record Record, sources sources, cuts []tracking.Cut) error {
	if sources.tracked != nil {
		return w.unwritten(record, sources)
	}
	for i, disk := range record.Disks {
		if err := tracking.Unchanged(disk.Path, disk.Stamp, cuts[i].Stamp); err != nil {
			return failure.Find(err).On(record.Name, disk.ID).
				Try("It cannot be equal any more; bring the replica up to date: vmreplica resync %s", record.Name)
		}
	}
	return nil
}

// unwritten refuses to compare what a machine writes to, or what the replica does not have yet.
func (w *worker) unwritten(record Record, sources sources) error {
	if w.owner.machine.attached() {
		return failure.New(failure.Precondition, failure.ReasonAttached, "the machine has its disks attached and may write to them").
			On(record.Name, "").Try("Verify it while it is shut down; its cycles prove what they send as they go.")
	}
	if pending := sources.tracked.group.Figures().Accumulated(); pending > 0 {
		return failure.New(failure.Precondition, failure.ReasonAttached, "%d bytes are still to be sent", pending).
			On(record.Name, "").Try("Wait for the next cycle, then verify: vmreplica get %s --watch", record.Name)
	}
	return nil
}

// continuous is nil while every image is as it was at its cut. Of those that are not the passes begin again:
// errAgain, or the failure itself for a verify.
func (w *worker) continuous(ctx context.Context, record Record, sources sources) error {
	changed, evidence, err := sources.changed(ctx, record)
	if err != nil || len(changed) == 0 {
		return err
	}
	if record.Active().Kind == replication.KindVerify {
		return evidence
	}
	if record.marksAreLost(changed) {
		return evidence
	}
	_, err = w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		found := failure.Find(evidence)
		return r.again(now(), changed, found.Disk, found.Message)
	})
	if err != nil {
		return err
	}
	if err := sources.begin(ctx, changed); err != nil {
		return err
	}
	return errAgain
}

// compare runs the passes and commits what they have proven.
func (w *worker) compare(ctx context.Context, record Record, position Position, sources sources) error {
	active := record.Active()
	w.activity(activityOf(active.Kind))
	peer := watched{Peer: w.replica.Transfers(active.Proof), worker: w, resync: active}
	outcome, err := w.owner.config.Attempt(ctx, peer, w.options(record, position, sources))
	if err == nil || failure.Find(err).Reason == failure.ReasonImageChanged {
		if again := w.continuous(ctx, w.owner.record(), sources); again != nil {
			return again
		}
	}
	if hasReason(err, failure.ReasonNotFound) {
		if _, gone := w.position(ctx); gone != nil {
			return gone
		}
	}
	if err != nil {
		return err
	}
	w.looked()
	if active.Kind == replication.KindVerify {
		if sources.tracked != nil {
			if err := w.unwritten(record, sources); err != nil {
				return err
			}
		}
		_, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
			return r.verified(now(), outcome, w.figures())
		})
		return err
	}
	if sources.tracked != nil {
		return w.catchUp(ctx, sources.tracked, outcome)
	}
	if _, err := w.apply(ctx, func(r Record) (Record, []event.Event, error) {
		return r.commit(now(), outcome, w.figures(), replication.NewID(), nil)
	}); err != nil {
		return err
	}
	return w.commit(ctx)
}

func activityOf(kind replication.ResyncKind) replication.Activity {
	if kind == replication.KindVerify {
		return replication.Verifying
	}
	return replication.Comparing
}

func (w *worker) options(record Record, position Position, sources sources) resync.Options {
	active := record.Active()
	options := resync.Options{
		Transfer: active.Transfer, Kind: active.Kind, Proof: active.Proof,
		Lineage: position.Lineage, Cut: position.Cut,
		// Whatever else is open there was opened by this relationship and is not wanted any more.
		DiscardOther:   position.Transfer != "" && position.Transfer != active.Transfer,
		RecoveryPoints: record.Spec.RecoveryPoints,
		Budget:         w.owner.config.Budget, Limits: w.owner.config.Limits,
	}
	progress := w.owner.live.follow(active)
	for i, disk := range active.Disks {
		options.Disks = append(options.Disks, resync.Disk{
			ID: disk.ID, Source: sources.disks[i], Cut: disk.Cut, Restart: disk.Restart, Progress: progress[i],
			MarksOnly: disk.MarksOnly,
		})
	}
	return options
}
