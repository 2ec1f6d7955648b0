package pair_test

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// receiveOn makes the receiver anew, on another storage.
func (w *world) receiveOn(s chain.Storage) {
	w.receiver = receive.New(receive.Config{
		Registry: chain.NewRegistry(w.registry.Table(), s), Space: w.storage,
		Gate: gate{w.registry.Table()}, Log: slog.New(slog.DiscardHandler), Limits: receive.DefaultLimits(),
	})
	w.t.Cleanup(w.receiver.Close)
	w.serve()
}

// failingSettle fails to make a base durable, as often as it is told to.
type failingSettle struct {
	chain.Storage
	failures *atomic.Int32
}

func (s failingSettle) Settle(b chain.Base) (disk.Stamp, error) {
	if s.failures.Add(-1) >= 0 {
		return disk.Stamp{}, storage.Failure(fmt.Errorf("base: %w", durable.SyncFailed(syscall.EIO)))
	}
	return s.Storage.Settle(b)
}

// A commit that could not make the base durable is not repeated with success: what the failed sync lost still reads as
// written.
func TestACommitAfterAFailedSyncIsRefused(t *testing.T) {
	w := newWorld(t, random(2, 20*mib), nil, nil)
	var failures atomic.Int32
	w.receiveOn(failingSettle{w.storage, &failures})
	id := replication.NewID()
	outcome, err := w.attempt(t.Context(), id, replication.KindInitial)
	must(t, err)
	commit := commitOf(id, outcome)
	failures.Store(1)
	for range 2 {
		_, err := w.link.Transfers(w.proof).Commit(t.Context(), commit)
		if err == nil || failure.Find(err).Reason != failure.ReasonStorageFailed {
			t.Fatalf("the commit answered %v", err)
		}
	}
	record, err := w.registry.Table().Get(vmName)
	must(t, err)
	if record.Transfer.Failed == "" || record.Lineage != "" {
		t.Errorf("failed: %q, lineage %q", record.Transfer.Failed, record.Lineage)
	}
}

func commitOf(id replication.ID, outcome resync.Outcome) resync.Commit {
	commit := resync.Commit{Transfer: id, Lineage: replication.NewID(), Cut: replication.NewID()}
	for _, d := range outcome.Disks {
		commit.Roots = append(commit.Roots, resync.DiskRoot{Disk: d.ID, Root: d.Root})
	}
	return commit
}

// standingOpen opens no base before it is let go.
type standingOpen struct {
	chain.Storage
	entered, goOn chan struct{}
}

func (s standingOpen) OpenBase(b chain.Base, sectorSize int) (disk.Disk, error) {
	close(s.entered)
	<-s.goOn
	return s.Storage.OpenBase(b, sectorSize)
}

// A storage that stands still when one VM's disks are opened holds up no other VM.
func TestOpeningOneVMsDisksHoldsUpNoOther(t *testing.T) {
	w := newWorld(t, random(2, mib), random(1, mib), nil)
	s := standingOpen{w.storage, make(chan struct{}), make(chan struct{})}
	w.receiveOn(s)
	begin := func(vm string) error {
		_, err := w.receiver.BeginTransfer(t.Context(), &vmreplicav1.BeginTransferRequest{
			Kind: vmreplicav1.TransferKind_TRANSFER_KIND_RESYNC, Proof: 1, Transfer: string(replication.NewID()),
			Relationship: &vmreplicav1.Relationship{Vm: vm, Uid: string(w.uid), Term: 1},
			Disks:        []*vmreplicav1.TransferDisk{{Id: diskID, SizeBytes: mib, LogicalSectorBytes: 512}},
		})
		return err
	}
	begun := make(chan error, 1)
	go func() { begun <- begin(vmName) }()
	<-s.entered
	others := make(chan error, 1)
	go func() {
		w.receiver.Supersede("web02", 2)
		w.receiver.Supersede(vmName, 2)
		w.receiver.CloseIdle(0)
		others <- begin("web02")
	}()
	select {
	case err := <-others:
		if err == nil || failure.Find(err).Reason != failure.ReasonNotFound {
			t.Errorf("a VM without a record: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("another VM's calls wait")
	}
	close(s.goOn)
	must(t, <-begun)
}
