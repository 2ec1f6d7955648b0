package receive

import (
	"context"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Transfer serves one disk's stream. Its first message names and admits it.
func (r *Receiver) Transfer(stream stream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return protocol("the first message is no open")
	}
	named := open.GetRelationship()
	if _, err := r.Gate.Admit(stream.Context(), named); err != nil {
		return err
	}
	t, err := r.enter(named.GetVm())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	one := &running{number: open.GetSession(), stop: cancel, done: make(chan struct{})}
	session, err := r.take(ctx, t, open, one)
	t.changing.Unlock()
	if err != nil {
		return failure.Locate(err, named.GetVm(), open.GetDisk())
	}
	session.stream = stream
	if err = session.run(ctx); err != nil {
		err = session.failTransfer(err)
	}
	t.leave(open.GetDisk(), one)
	if err != nil && (session.spoiled.Load() || failure.Find(err).Reason == failure.ReasonStorageFailed) {
		// What the open files hold is unknown; the next transfer opens them anew.
		r.End(named.GetVm())
	}
	err = failure.Locate(err, named.GetVm(), open.GetDisk())
	r.noteObstacle(named.GetVm(), err)
	return err
}

// take makes one the disk's session: an older one is stopped and waited for before the record changes hands. The
// caller has entered t.
func (r *Receiver) take(ctx context.Context, t *transfer, open *vmreplicav1.TransferOpen, one *running) (*session, error) {
	diskID := open.GetDisk()
	record, err := t.takeSession(ctx, one, chain.Session{
		Transfer: replication.ID(open.GetTransfer()), Disk: diskID, Number: one.number,
		Term: open.GetRelationship().GetTerm(), Restart: open.GetRestart(), Time: time.Now().UTC(),
	})
	if err != nil {
		return nil, err
	}
	session, err := r.session(t, record, diskID)
	if err != nil {
		return nil, err
	}
	session.number = one.number
	session.start(open.GetDigestCreditBytes())
	t.join(diskID, one)
	return session, nil
}

// join makes one the disk's running session.
func (t *transfer) join(diskID string, one *running) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sessions[diskID] = one
}

// takeSession gives the record's session of a disk to one, when an older one has ended.
func (t *transfer) takeSession(ctx context.Context, one *running, asked chain.Session) (chain.Record, error) {
	if err := ctx.Err(); err != nil {
		return chain.Record{}, err
	}
	t.mu.Lock()
	older := t.sessions[asked.Disk]
	t.mu.Unlock()
	superseded := failure.New(failure.Conflict, failure.ReasonStaleSession,
		"session %d was superseded by session %d", olderNumber(older), one.number)
	if older != nil && older.number < one.number {
		older.stop(superseded)
		<-older.done
	}
	if asked.Shipment != "" {
		return t.vm.BeginShipment(asked)
	}
	return t.vm.TakeSession(asked)
}

func olderNumber(older *running) uint64 {
	if older == nil {
		return 0
	}
	return older.number
}

// leave says that nothing of a session runs any more.
func (t *transfer) leave(diskID string, one *running) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[diskID] == one {
		delete(t.sessions, diskID)
	}
	t.used = time.Now()
	close(one.done)
}

// session is a session on a disk as the record has it.
func (r *Receiver) session(t *transfer, record chain.Record, diskID string) (*session, error) {
	opened, err := t.vm.Disk(diskID)
	if err != nil {
		return nil, err
	}
	d := record.Disk(diskID)
	geometry, err := blockdiff.NewGeometry(d.SizeBytes)
	if err != nil {
		return nil, err
	}
	prover, err := blockdiff.NewProver(record.Transfer.Proof)
	if err != nil {
		return nil, err
	}
	s := &session{
		vm: t.vm, diskID: diskID, transfer: record.Transfer.ID, kind: record.Transfer.Kind,
		limits: r.Limits, space: r.Space, checkRoom: r.checkRoom,
		progressed: func() { r.noteProgress(t.vm.Name()) },
		view:       opened.View(), target: opened.Top(),
		geometry: geometry, prover: prover, cursor: *record.Cursor(diskID),
	}
	if top := len(d.Layers) - 1; top >= 0 && d.Layers[top].State == chain.Receiving && d.TargetFile(top) != "" {
		s.balloon, s.merged = chain.BalloonFile(d.Layers[top].File), opened.Target(d, top)
	}
	return s, nil
}
