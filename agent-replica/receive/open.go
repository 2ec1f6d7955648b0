package receive

import (
	"context"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Transfer serves the pass over one disk. Its first message names and admits it.
func (r *Receiver) Transfer(stream stream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return protocol("the first message is no open")
	}
	asked := opening{
		named: open.GetRelationship(), take: (*chain.VM).TakeSession,
		session: chain.Session{
			Transfer: replication.ID(open.GetTransfer()), Disk: open.GetDisk(), Number: open.GetSession(), Restart: open.GetRestart(),
		},
		start: func(p *part, cursor chain.TransferDisk) worker {
			s := &session{part: p, stream: stream, cursor: cursor}
			s.start(open.GetDigestCreditBytes())
			return s
		},
	}
	return r.serve(stream.Context(), asked)
}

// opening is what a stream's first message asks for.
type opening struct {
	named   *vmreplicav1.Relationship
	session chain.Session
	// take makes the session the disk's only one in the record.
	take func(*chain.VM, chain.Session) (chain.Record, error)
	// start is what works on the disk then.
	start func(*part, chain.TransferDisk) worker
}

// worker serves a stream whose session is taken, until it has finished or ctx ends. When run returns nothing touches the
// disk any more; what waits in the stream's own calls ends with them.
type worker interface {
	run(ctx context.Context) error
}

// serve admits a stream, takes its session and works on its disk.
func (r *Receiver) serve(ctx context.Context, asked opening) error {
	vmName, diskID := asked.named.GetVm(), asked.session.Disk
	if _, err := r.Gate.Admit(ctx, asked.named); err != nil {
		return err
	}
	t, err := r.enter(vmName)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	one := &running{number: asked.session.Number, stop: cancel, done: make(chan struct{})}
	part, work, err := r.take(ctx, t, asked, one)
	t.changing.Unlock()
	if err != nil {
		return failure.Locate(err, vmName, diskID)
	}
	if err = work.run(ctx); err != nil {
		err = part.failTransfer(err)
	}
	t.leave(diskID, one)
	if err != nil && (part.spoiled.Load() || failure.Find(err).Reason == failure.ReasonStorageFailed) {
		// What the open files hold is unknown; the next transfer opens them anew.
		r.End(vmName)
	}
	err = failure.Locate(err, vmName, diskID)
	r.noteObstacle(vmName, err)
	return err
}

// take makes one the disk's session: an older one is stopped and waited for before the record changes hands. The
// caller has entered t.
func (r *Receiver) take(ctx context.Context, t *transfer, asked opening, one *running) (*part, worker, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	session := asked.session
	session.Term, session.Time = asked.named.GetTerm(), time.Now().UTC()
	t.mu.Lock()
	older := t.sessions[session.Disk]
	t.mu.Unlock()
	superseded := failure.New(failure.Conflict, failure.ReasonStaleSession,
		"session %d was superseded by session %d", olderNumber(older), one.number)
	if older != nil && older.number < one.number {
		older.stop(superseded)
		<-older.done
	}
	record, err := asked.take(t.vm, session)
	if err != nil {
		return nil, nil, err
	}
	part, err := r.part(t, record, session)
	if err != nil {
		return nil, nil, err
	}
	work := asked.start(part, *record.Cursor(session.Disk))
	t.mu.Lock()
	t.sessions[session.Disk] = one
	t.mu.Unlock()
	return part, work, nil
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
