package chain_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
)

const size = 1 << 20

func id(digit string) replication.ID { return replication.ID(strings.Repeat(digit, 32)) }

// adopted is a VM whose one base lies in a directory of the host.
func adopted(t *testing.T) (*chain.Registry, *chain.VM, string) {
	t.Helper()
	dir := t.TempDir()
	base := filepath.Join(dir, "p", "web01", "root")
	if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(base, bytes.Repeat([]byte{7}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := storage.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	registry := chain.NewRegistry(chain.NewTable(statetest.New(durabletest.New()), nil), files)
	_, err = registry.Prepare(chain.Prepare{
		VM: "web01", UID: id("0"), Primary: "p", Directory: "p/web01", Term: 1, UseExisting: true,
		Disks: []chain.PrepareDisk{{Geometry: geometry()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registry, registry.VM("web01"), base
}

func geometry() chain.Geometry {
	return chain.Geometry{ID: "root", SizeBytes: size, LogicalSectorSize: 512}
}

func begin(transfer string) chain.Begin {
	return chain.Begin{Term: 1, Transfer: id(transfer), Kind: replication.KindResync, Proof: blockdiff.BLAKE3,
		Disks: []chain.Geometry{geometry()}}
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return failure.Find(err).Reason
}

func TestHoldsExcludeAsTheyShould(t *testing.T) {
	_, vm, _ := adopted(t)
	all := []chain.Purpose{chain.ToTransfer, chain.ToMerge, chain.ToSeal, chain.ToRemove}
	together := map[[2]chain.Purpose]bool{
		{chain.ToTransfer, chain.ToMerge}: true, {chain.ToMerge, chain.ToTransfer}: true,
		{chain.ToTransfer, chain.ToSeal}: true, {chain.ToSeal, chain.ToTransfer}: true,
		{chain.ToSeal, chain.ToMerge}: true, {chain.ToMerge, chain.ToSeal}: true,
	}
	for _, first := range all {
		for _, second := range all {
			release, err := vm.Hold(first)
			if err != nil {
				t.Fatal(err)
			}
			again, err := vm.Hold(second)
			switch {
			case together[[2]chain.Purpose{first, second}] != (err == nil):
				t.Errorf("%q beside %q: %v", second, first, err)
			case err == nil:
				again()
			case reason(err) != failure.ReasonWrongState || !strings.Contains(err.Error(), string(first)):
				t.Errorf("%q does not say that %q", err, first)
			}
			release()
			release()
			if again, err = vm.Hold(second); err != nil {
				t.Errorf("%q after %q: %v", second, first, err)
			} else {
				again()
			}
		}
	}
}

func TestAHoldIsAwaited(t *testing.T) {
	_, vm, _ := adopted(t)
	synctest.Test(t, func(t *testing.T) {
		vm := chain.NewRegistry(nil, nil).VM(vm.Name())
		release, err := vm.Hold(chain.ToMerge)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := vm.AwaitHold(ctx, chain.ToRemove); reason(err) != failure.ReasonWrongState {
			t.Errorf("after a minute: %v", err)
		}
		time.AfterFunc(time.Second, release)
		started := time.Now()
		removing, err := vm.AwaitHold(context.Background(), chain.ToRemove)
		if err != nil || time.Since(started) != time.Second {
			t.Errorf("after %v: %v", time.Since(started), err)
		}
		removing()
	})
}

func TestAChangedBaseIsADoubtUntilACommit(t *testing.T) {
	_, vm, base := adopted(t)
	if doubts, err := vm.Doubts(); err != nil || doubts[0] != "" {
		t.Fatalf("doubts %q, %v", doubts, err)
	}
	file, err := os.OpenFile(base, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte{9}, 100)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	if err := vm.Acquire(); err != nil {
		t.Fatal("a changed base must open, or no resync could mend it:", err)
	}
	for range 2 {
		if doubts, err := vm.Doubts(); err != nil || !strings.Contains(doubts[0], "written to") {
			t.Errorf("doubts %q, %v", doubts, err)
		}
	}
	record := transfer(t, vm, "a")
	if record.Disks[0].Doubt != "" {
		t.Errorf("after a commit the doubt stands: %s", record.Disks[0].Doubt)
	}
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
	if doubts, err := vm.Doubts(); err != nil || doubts[0] != "" {
		t.Errorf("doubts after a commit %q, %v", doubts, err)
	}
}

// write changes one byte of a file that another program has open.
func write(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte{9}, 100)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// A program that locks nothing may write to a base while it is open. Nothing that was proven of it commits then.
func TestABaseThatChangesUnderATransferIsNotCommittedOn(t *testing.T) {
	_, vm, base := adopted(t)
	if err := vm.Acquire(); err != nil {
		t.Fatal(err)
	}
	commit := prove(t, vm, "a")
	write(t, base)
	if _, err := vm.Commit(commit); reason(err) != failure.ReasonReplicaRecord || !strings.Contains(err.Error(), "written to") {
		t.Errorf("the commit answered %v", err)
	}
	record, err := vm.Record()
	if err != nil || record.Lineage != "" || record.Disks[0].Doubt == "" || record.Transfer.Disks[0].Proven {
		t.Errorf("the record after it: %+v, %v", record, err)
	}
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
}

// A merge forgets the base's stamp; what it told is looked at before.
func TestABaseThatChangesBeforeItsMergeIsADoubt(t *testing.T) {
	_, vm, base := adopted(t)
	if err := vm.Acquire(); err != nil {
		t.Fatal(err)
	}
	transfer(t, vm, "a")
	write(t, base)
	if _, err := vm.StartMerge("root", lowest(t, vm), 4096); err != nil {
		t.Fatal(err)
	}
	if record, err := vm.Record(); err != nil || !strings.Contains(record.Disks[0].Doubt, "written to") {
		t.Errorf("the doubt is %q, %v", record.Disks[0].Doubt, err)
	}
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
}

// lowest is the file of the disk's lowest layer.
func lowest(t *testing.T, vm *chain.VM) string {
	t.Helper()
	record, err := vm.Record()
	if err != nil || len(record.Disks[0].Layers) == 0 {
		t.Fatal("there is no layer", err)
	}
	return record.Disks[0].Layers[0].File
}

// transfer receives one sub-block and commits.
func transfer(t *testing.T, vm *chain.VM, digit string) chain.Record {
	t.Helper()
	record, err := vm.Commit(prove(t, vm, digit))
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// prove receives one sub-block, and all of it is proven.
func prove(t *testing.T, vm *chain.VM, digit string) chain.Commit {
	t.Helper()
	if _, err := vm.Begin(begin(digit)); err != nil {
		t.Fatal(err)
	}
	opened, err := vm.Disk("root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened.Top().WriteAt(bytes.Repeat([]byte{3}, 4096), 8192); err != nil {
		t.Fatal(err)
	}
	root := blockdiff.Hash{1}
	_, err = vm.Update(func(r *chain.Record) error {
		session := r.Cursor("root").Session + 1
		return errors.Join(r.TakeSession(id(digit), "root", session),
			r.SaveCursor(id(digit), "root", session, 1, blockdiff.Hash{2}),
			r.ProveDisk(id(digit), "root", session, root))
	})
	if err != nil {
		t.Fatal(err)
	}
	return chain.Commit{Transfer: id(digit), Term: 1, Lineage: id(digit), Cut: id(digit),
		Roots: []chain.Root{{Disk: "root", Root: root}}}
}

func TestAMissingLayerIsAFaultAndNeverMadeAgain(t *testing.T) {
	_, vm, base := adopted(t)
	if err := vm.Acquire(); err != nil {
		t.Fatal(err)
	}
	transfer(t, vm, "a")
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
	layer := base + ".aaaaaaaa.qcow2"
	if err := os.Remove(layer); err != nil {
		t.Fatal(err)
	}
	if err := vm.Acquire(); reason(err) != failure.ReasonBaseMissing || !strings.Contains(err.Error(), layer) {
		t.Errorf("opened with a layer missing: %v", err)
	}
	if doubts, err := vm.Doubts(); err != nil || !strings.Contains(doubts[0], layer) {
		t.Errorf("doubts %q, %v", doubts, err)
	}
	if _, err := os.Stat(layer); !os.IsNotExist(err) {
		t.Errorf("the layer was made again: %v", err)
	}
}

func TestOpenDisksAreShared(t *testing.T) {
	_, vm, base := adopted(t)
	for range 2 {
		if err := vm.Acquire(); err != nil {
			t.Fatal(err)
		}
	}
	first, err := vm.Disk("root")
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := vm.Disk("root")
	if err != nil || first != second {
		t.Errorf("another opening while one is in use: %v", err)
	}
	transfer(t, vm, "a")
	got := make([]byte, 12288)
	if _, err := second.View().ReadAt(got, 4096); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{7}, 12288)
	copy(want[4096:8192], bytes.Repeat([]byte{3}, 4096))
	if !bytes.Equal(got, want) {
		t.Error("the view does not show the committed layer")
	}
	if onDisk, err := os.ReadFile(base); err != nil || !bytes.Equal(onDisk, bytes.Repeat([]byte{7}, size)) {
		t.Errorf("the base changed before its merge: %v", err)
	}
	if err := vm.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Disk("root"); err == nil {
		t.Error("the disk is open after its last release")
	}
}

func TestAnAbortLeavesTheBaseAlone(t *testing.T) {
	_, vm, base := adopted(t)
	if err := vm.Acquire(); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Begin(begin("a")); err != nil {
		t.Fatal(err)
	}
	opened, err := vm.Disk("root")
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Top().Zero(0, size); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Abort(id("a"), 1); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(vm.Clean(), vm.Release()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(base)
	if err != nil || !bytes.Equal(content, bytes.Repeat([]byte{7}, size)) {
		t.Errorf("the base changed: %v", err)
	}
	if names, err := os.ReadDir(filepath.Dir(base)); err != nil || len(names) != 1 {
		t.Errorf("left %v, %v", names, err)
	}
	if doubts, err := vm.Doubts(); err != nil || doubts[0] != "" {
		t.Errorf("doubts %q, %v", doubts, err)
	}
}

func TestRemovalWaitsForWhatGoesOn(t *testing.T) {
	registry, vm, base := adopted(t)
	release, err := vm.Hold(chain.ToTransfer)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := registry.Remove(ctx, "web01", true); reason(err) != failure.ReasonWrongState {
		t.Errorf("removed under a transfer: %v", err)
	}
	release()
	notes, err := registry.Remove(t.Context(), "web01", false)
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], base) {
		t.Errorf("removed: %q, %v", notes, err)
	}
	if _, err := os.Stat(base); err != nil {
		t.Errorf("the disk that was to stay: %v", err)
	}
	if _, err := vm.Record(); reason(err) != failure.ReasonNotFound {
		t.Errorf("the record: %v", err)
	}
}

// countedLayers is a storage that tells how often a layer was opened.
type countedLayers struct {
	chain.Storage
	opened int
}

func (c *countedLayers) OpenLayer(l chain.Layer) (disk.Layer, error) {
	c.opened++
	return c.Storage.OpenLayer(l)
}

// A receiving layer whose flush has failed is of no more use as it is open, whoever else has the disks.
func TestAReceivingLayerIsOpenedAnewBesideAMerge(t *testing.T) {
	h := newHost(t, true)
	counted := &countedLayers{Storage: h.files}
	vm := chain.NewRegistry(chain.NewTable(h.store, nil), counted).VM("web01")
	check(t, vm.Acquire()) // the merge's
	check(t, vm.Acquire())
	commit := prove(t, vm, "a")
	opened, err := vm.Disk("root")
	check(t, err)
	check(t, opened.Top().Flush())
	check(t, vm.ReleaseTransfer())
	if counted.opened != 0 || len(opened.Layers()) != 0 {
		t.Errorf("after the transfer %d layers are open", len(opened.Layers()))
	}
	check(t, vm.Acquire())
	if counted.opened != 1 || len(opened.Layers()) != 1 {
		t.Errorf("the layer was opened %d times, %d are open", counted.opened, len(opened.Layers()))
	}
	_, err = vm.Commit(commit)
	check(t, err)
	got := make([]byte, 4096)
	_, err = opened.View().ReadAt(got, 8192)
	check(t, err)
	if !bytes.Equal(got, bytes.Repeat([]byte{3}, 4096)) {
		t.Error("what was received is not in the layer that was opened anew")
	}
	check(t, errors.Join(vm.ReleaseTransfer(), vm.Release()))
}

// A term that was raised supersedes what runs under a lower one, at a cursor and at the commit.
func TestARaisedTermEndsWhatALowerOneBegan(t *testing.T) {
	h := newHost(t, true)
	vm := h.start()
	check(t, vm.Acquire())
	commit := prove(t, vm, "a")
	_, err := vm.Update(func(r *chain.Record) error { return r.RaiseTerm(2) })
	check(t, err)
	_, err = vm.Update(func(r *chain.Record) error {
		return r.SaveCursor(id("a"), "root", 1, 1, blockdiff.Hash{2})
	})
	if reason(err) != failure.ReasonStaleSession {
		t.Errorf("a cursor of the lower term: %v", err)
	}
	if _, err := vm.Commit(commit); reason(err) != failure.ReasonStaleTerm {
		t.Errorf("a commit of the lower term: %v", err)
	}
	commit.Term = 2
	_, err = vm.Commit(commit)
	check(t, errors.Join(err, vm.Release()))
}
