package receive

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Space holds the room of merges.
type Space interface {
	Balloon(file string) *storage.Balloon
}

// Gate admits a primary's call; the front of the agent has it.
type Gate interface {
	Admit(ctx context.Context, named *vmreplicav1.Relationship) (chain.Record, error)
}

// Obstacles is told what stands in the way of a VM's transfer and when it is gone, as often as it shows.
type Obstacles interface {
	// Full says that a disk, or the VM when disk is empty, waits for room, and for how much in message.
	Full(vm, disk, message string)
	// Progress says that something was received and is durable.
	Progress(vm string)
	// Ended says that the VM's transfer was discarded.
	Ended(vm string)
	// InUse says that another program has a disk of the VM open, and which in message.
	InUse(vm, disk, message string)
	// Opened says that the VM's disks are open.
	Opened(vm string)
}

// Config is what a Receiver works on.
type Config struct {
	Registry *chain.Registry
	Space    Space
	Gate     Gate
	// CheckRoom refuses a transfer that the entry's quota does not allow to go on; nil when there are no quotas.
	CheckRoom func(record chain.Record) error
	// CheckBegin refuses to begin, or to go on with, a transfer for which there is no room at all; nil refuses none.
	CheckBegin func(record chain.Record, kind replication.ResyncKind) error
	// Obstacles is told what stands in the way; nil is told nothing.
	Obstacles Obstacles
	Log       *slog.Logger
	Limits    Limits
}

// Receiver serves the transfers of all VMs. Its methods may be called concurrently.
type Receiver struct {
	Config

	mu sync.Mutex
	// transfers are the VMs whose disks are open for a transfer, or being opened, by name.
	transfers map[string]*transfer
	closed    bool
}

// transfer is a VM whose disks are open, or being opened, and held for its transfer.
type transfer struct {
	vm *chain.VM
	// release gives the disks back; set when they are open.
	release func()

	// changing is held by whoever opens the disks, begins, commits or aborts the transfer, or takes a session.
	changing sync.Mutex
	// sessions are the streams that run, by disk, and used is when the last one ended or a call came; guarded by mu.
	mu       sync.Mutex
	sessions map[string]*running
	used     time.Time
}

// running is a session's end: stop asks for it, done is closed when nothing of it runs.
type running struct {
	number uint64
	stop   context.CancelCauseFunc
	done   chan struct{}
}

// New makes a Receiver that holds nothing.
func New(config Config) *Receiver {
	return &Receiver{Config: config, transfers: map[string]*transfer{}}
}

// enter opens the VM's disks and holds them for a transfer, or finds them open, and takes changing. What was given back
// while it waited for that is opened again, so that no session runs that the next one would not know of.
func (r *Receiver) enter(vmName string) (*transfer, error) {
	for {
		t, made, err := r.place(vmName)
		if err != nil {
			return nil, err
		}
		if made {
			return t, r.open(vmName, t)
		}
		t.changing.Lock()
		if r.current(vmName, t) {
			t.use()
			return t, nil
		}
		t.changing.Unlock()
	}
}

// place is the VM's transfer. One that was made just now has its disks closed and changing held: only who asks for the
// same VM waits for their opening, which may take as long as the storage does.
func (r *Receiver) place(vmName string) (t *transfer, made bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, false, failure.New(failure.Unreachable, failure.ReasonShuttingDown,
			"the replica agent is shutting down").On(vmName, "")
	}
	if t := r.transfers[vmName]; t != nil {
		return t, false, nil
	}
	t = &transfer{vm: r.Registry.VM(vmName), sessions: map[string]*running{}, used: time.Now()}
	t.changing.Lock()
	r.transfers[vmName] = t
	return t, true, nil
}

// open opens the disks of a transfer that was placed just now; when it fails the transfer is gone, and changing given
// back.
func (r *Receiver) open(vmName string, t *transfer) error {
	// It is looked at after the transfer was placed: whoever begins a failover later finds it here and ends it.
	record, err := t.vm.Record()
	if err == nil {
		err = record.CheckFailover()
	}
	unhold := func() {}
	if err == nil {
		unhold, err = t.vm.Hold(chain.ToTransfer)
	}
	if err == nil {
		if err = t.vm.Acquire(); err != nil {
			unhold()
		}
	}
	if err != nil {
		r.mu.Lock()
		delete(r.transfers, vmName)
		r.mu.Unlock()
		t.changing.Unlock()
		return err
	}
	t.release = func() {
		if err := t.vm.ReleaseTransfer(); err != nil {
			r.Log.Error("close the disks after a transfer", "vm", vmName, "error", err)
		}
		unhold()
	}
	t.use()
	if r.Obstacles != nil {
		r.Obstacles.Opened(vmName)
	}
	return nil
}

// enterFor is enter for a call whose request was read with that error.
func (r *Receiver) enterFor(vmName string, read error) (*transfer, error) {
	if read != nil {
		return nil, failure.Locate(read, vmName, "")
	}
	return r.enter(vmName)
}

// current says that t was not given back. It stays so while t's changing is held.
func (r *Receiver) current(vmName string, t *transfer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.transfers[vmName] == t
}

// BeginTransfer opens a transfer or finds it again. The call is admitted.
func (r *Receiver) BeginTransfer(_ context.Context, request *vmreplicav1.BeginTransferRequest,
) (*vmreplicav1.BeginTransferResponse, error) {
	begin, err := beginOf(request)
	vmName := request.GetRelationship().GetVm()
	t, err := r.enterFor(vmName, err)
	if err != nil {
		r.noteObstacle(vmName, err)
		return nil, err
	}
	defer t.changing.Unlock()
	record, err := r.begin(t, begin)
	r.noteObstacle(vmName, err)
	if err != nil {
		if record, readErr := t.vm.Record(); readErr == nil && record.Transfer == nil {
			r.drop(vmName) // nothing is open that the disks would be held for
		}
		return nil, err
	}
	return cursorsOf(record, begin)
}

// begin opens the transfer in the record. The caller holds changing.
func (r *Receiver) begin(t *transfer, begin chain.Begin) (chain.Record, error) {
	record, err := t.vm.Record()
	if err != nil {
		return record, err
	}
	if err := r.checkBegin(record, begin.Kind); err != nil {
		return record, err
	}
	if record.Transfer != nil && record.Transfer.ID != begin.Transfer && begin.Restart {
		t.stopAll(failure.New(failure.Conflict, failure.ReasonStaleSession, "the transfer was discarded").On(t.vm.Name(), ""))
	}
	if record, err = t.vm.Begin(begin); err != nil {
		return record, err
	}
	r.clean(t.vm)
	return record, nil
}

// clean deletes what a discarded transfer has left; what cannot be deleted now is deleted by the next one.
func (r *Receiver) clean(vm *chain.VM) {
	if err := vm.Clean(); err != nil {
		r.Log.Warn("delete what a discarded transfer left", "vm", vm.Name(), "error", err)
	}
}

func (r *Receiver) checkBegin(record chain.Record, kind replication.ResyncKind) error {
	if err := r.checkRoom(record); err != nil || r.CheckBegin == nil {
		return err
	}
	return r.CheckBegin(record, kind)
}

func (r *Receiver) checkRoom(record chain.Record) error {
	if r.CheckRoom == nil {
		return nil
	}
	return r.CheckRoom(record)
}

// CommitTransfer commits an open transfer whose streams have ended. The call is admitted.
func (r *Receiver) CommitTransfer(ctx context.Context, request *vmreplicav1.CommitTransferRequest,
) (*vmreplicav1.CommitTransferResponse, error) {
	commit, err := commitOf(request)
	vmName := request.GetRelationship().GetVm()
	t, err := r.enterFor(vmName, err)
	if err != nil {
		return nil, err
	}
	defer t.changing.Unlock()
	if err := t.awaitAll(ctx, commitWait); err != nil {
		return nil, err
	}
	if err := r.holdRooms(t); err != nil {
		r.noteObstacle(vmName, err)
		return nil, err
	}
	record, err := t.vm.Commit(commit)
	if err != nil {
		return nil, r.commitFailed(t, commit.Transfer, err)
	}
	r.drop(vmName)
	r.noteProgress(vmName)
	return &vmreplicav1.CommitTransferResponse{
		Lineage: string(record.Lineage), Cut: string(record.Cut), MergePending: record.LayersToMerge() > 0,
	}, nil
}

// commitFailed says why nothing was committed. A failed sync, whatever was synced, ends the transfer for good, before
// anything else could be made of it. After any other error of the storage the files are opened anew for the next attempt,
// and when another file may lie there now.
func (r *Receiver) commitFailed(t *transfer, id replication.ID, err error) error {
	if errors.Is(err, durable.ErrSync) {
		_, recordErr := t.vm.Update(func(r *chain.Record) error { return r.FailTransfer(id, err.Error()) })
		r.drop(t.vm.Name())
		if recordErr != nil {
			return recordErr
		}
	}
	found := failure.Find(err)
	switch {
	case found.Reason == failure.ReasonReplicaRecord, found.Reason == failure.ReasonStorageFailed:
		r.drop(t.vm.Name())
	case found.Reason == failure.ReasonInternal && found.Err != nil:
		r.drop(t.vm.Name())
		return failure.Locate(storage.Failure(found.Err), found.VM, found.Disk)
	}
	return err
}

// commitWait is how long a commit waits for streams that have finished to end.
const commitWait = 10 * time.Second

// AbortTransfer discards an open transfer. The call is admitted.
func (r *Receiver) AbortTransfer(_ context.Context, request *vmreplicav1.AbortTransferRequest,
) (*vmreplicav1.AbortTransferResponse, error) {
	vmName := request.GetRelationship().GetVm()
	id := replication.ID(request.GetTransfer())
	vm := r.Registry.VM(vmName)
	if t, err := r.enter(vmName); err == nil {
		defer t.changing.Unlock()
		record, err := vm.Record()
		if err != nil {
			return nil, err
		}
		if record.Transfer == nil || record.Transfer.ID == id {
			t.stopAll(failure.New(failure.Cancelled, failure.ReasonStaleSession, "the transfer was aborted").On(vmName, ""))
			defer r.drop(vmName)
		}
	}
	// Disks that cannot be opened have no streams, and their transfer can be discarded all the same.
	if _, err := vm.Abort(id, request.GetRelationship().GetTerm()); err != nil {
		return nil, err
	}
	if r.Obstacles != nil {
		r.Obstacles.Ended(vmName)
	}
	r.clean(vm)
	return &vmreplicav1.AbortTransferResponse{}, nil
}
