package pair_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// spaceOf makes the room of merges that of another storage.
func (w *world) spaceOf(space receive.Space) {
	w.receiver.Close()
	config := w.receiver.Config
	config.Space = space
	w.receiver = receive.New(config)
	w.t.Cleanup(w.receiver.Close)
	w.serve()
}

// A resync commits only when the storage holds all that its merge will take: behind the commit there is no way back.
func TestNoCommitWithoutRoomForTheMerge(t *testing.T) {
	ours := random(2, 40*mib)
	w := newWorld(t, ours, make([]byte, 40*mib), nil)
	id := replication.NewID()
	outcome, err := w.attempt(t.Context(), id, replication.KindResync)
	must(t, err)
	commit := commitOf(id, outcome)
	full, err := storage.Open(durabletest.NewVolume(t, 32<<20).Path, nil)
	must(t, err)
	defer full.Close()
	roomy := w.receiver.Space
	w.spaceOf(full)
	for range 2 {
		_, err = w.link.Transfers(w.proof).Commit(t.Context(), commit)
		if err == nil || !failure.Retryable(err) || failure.Find(err).Reason != failure.ReasonStorageFull ||
			!strings.Contains(failure.Find(err).Message, "41") {
			t.Fatalf("without room the commit answered %v", err)
		}
	}
	record, err := w.registry.Table().Get(vmName)
	must(t, err)
	balloon := w.storage.Path(chain.BalloonFile(record.Disks[0].Layers[0].File))
	must(t, os.Truncate(balloon, 0)) // as a loss of power may leave it
	w.spaceOf(roomy)
	_, err = w.link.Transfers(w.proof).Commit(t.Context(), commit)
	must(t, err)
	if info, err := os.Stat(balloon); err != nil || info.Size() < 40*mib {
		t.Fatalf("behind the commit the balloon is %v, %v", info, err)
	}
	w.merge()
	got, err := os.ReadFile(w.base)
	must(t, err)
	if !bytes.Equal(got, ours) {
		t.Error("the merge ended with other content")
	}
}

// A cursor stands for what has room in the base, also when it is tried again without anything new to flush.
func TestNoCursorWithoutRoomForTheMerge(t *testing.T) {
	w := newWorld(t, random(2, 40*mib), make([]byte, 40*mib), nil)
	full, err := storage.Open(durabletest.NewVolume(t, 32<<20).Path, nil)
	must(t, err)
	defer full.Close()
	w.spaceOf(full)
	id := replication.NewID()
	for range 5 {
		if _, err := w.attempt(t.Context(), id, replication.KindResync); failure.Find(err).Reason != failure.ReasonStorageFull {
			t.Fatalf("answered %v", err)
		}
		record, err := w.registry.Table().Get(vmName)
		must(t, err)
		if at := record.Transfer.Disks[0]; at.Proven || at.Segment > 2 {
			t.Fatalf("the cursor is at %+v", at)
		}
	}
}
