package chain_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// layered is a host whose replica keeps a point, with a layer on it that holds a cycle's content.
func layered(t *testing.T) (h *host, layer string) {
	t.Helper()
	h = newHost(t, true)
	vm := h.start()
	check(t, vm.Acquire())
	_, err := vm.Update(func(r *chain.Record) error {
		r.Lineage, r.Cut = id("1"), id("1") // as if it had committed before
		return r.SetPolicy(2)
	})
	check(t, err)
	_, err = vm.SealPoint(time.Unix(1000, 0))
	check(t, err)
	cycle(t, vm, "a")
	startMerge(t, vm)
	finishMerge(t, vm)
	check(t, vm.Release())
	return h, filepath.Join(filepath.Dir(h.base), filepath.Base(lowest(t, vm)))
}

// cycle commits a delta of one sub-block.
func cycle(t *testing.T, vm *chain.VM, digit string) {
	t.Helper()
	_, err := vm.Commit(ship(t, vm, digit))
	check(t, err)
}

// ship receives a delta of one sub-block and answers its commit.
func ship(t *testing.T, vm *chain.VM, digit string) chain.Commit {
	t.Helper()
	b := begin(digit)
	record, err := vm.Record()
	check(t, err)
	b.Kind, b.Lineage, b.Cut, b.RecoveryPoints = replication.KindDelta, record.Lineage, record.Cut, record.RecoveryPoints
	record, err = vm.Begin(b)
	check(t, err)
	opened, err := vm.Disk("root")
	check(t, err)
	_, err = opened.Top().WriteAt(bytes.Repeat([]byte{5}, 4096), 16384)
	check(t, err)
	shipment := chain.Shipment{ID: id(digit), Root: blockdiff.Hash{4}}
	_, err = vm.Update(func(r *chain.Record) error {
		session := r.Cursor("root").Session + 1
		return errors.Join(r.BeginShipment(id(digit), "root", session, shipment.ID),
			r.FinishShipment(id(digit), "root", session, shipment))
	})
	check(t, err)
	return chain.Commit{Transfer: id(digit), Term: 1, Lineage: record.Lineage, Cut: id(digit), Roots: []chain.Root{
		{Disk: "root", Root: record.Disks[0].Root, Shipment: shipment.ID, ShipmentRoot: shipment.Root}}}
}

// startMerge begins to merge the second layer into the first.
func startMerge(t *testing.T, vm *chain.VM) {
	t.Helper()
	record, err := vm.Record()
	check(t, err)
	_, err = vm.StartMerge("root", record.Disks[0].Layers[1].File, 4096)
	check(t, err)
	opened, err := vm.Disk("root")
	check(t, err)
	_, err = opened.Below(1).WriteAt(bytes.Repeat([]byte{5}, 4096), 16384)
	check(t, err)
}

func finishMerge(t *testing.T, vm *chain.VM) {
	t.Helper()
	_, err := vm.FinishMerge("root", chain.Merged{})
	check(t, err)
}

// writeLast changes the last byte of a file, which is none of its format's.
func writeLast(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	check(t, err)
	end, err := file.Seek(-1, io.SeekEnd)
	check(t, err)
	_, err = file.WriteAt([]byte{9}, end)
	check(t, errors.Join(err, file.Close()))
}

// changes are what another program does to a layer's file, and how it is told.
var changes = map[string]struct {
	do   func(t *testing.T, file string)
	told string
}{
	"nothing":          {func(*testing.T, string) {}, ""},
	"it is written to": {writeLast, "written to"},
	"another file is put in its place": {func(t *testing.T, file string) {
		content, err := os.ReadFile(file)
		check(t, errors.Join(err, os.WriteFile(file+".new", content, 0o600), os.Rename(file+".new", file)))
	}, "another file"},
	"it is put back in time": {func(t *testing.T, file string) {
		check(t, os.Chtimes(file, time.Unix(1000, 0), time.Unix(1000, 0)))
	}, "modification time"},
}

// A layer that stays on a point holds the newest content for as long as the point is kept: another program's change of it
// is a doubt like that of a base, and nothing is received on it until a resync.
func TestAChangedLayerIsADoubtUntilAResync(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			h, layer := layered(t)
			c.do(t, layer)
			vm := h.start()
			wantDoubt(t, vm, c.told)
			check(t, vm.Acquire())
			defer vm.Release()
			delta := begin("b")
			delta.Kind, delta.Lineage, delta.Cut, delta.RecoveryPoints = replication.KindDelta, id("1"), id("a"), 2
			if _, err := vm.Begin(delta); (c.told == "") != (err == nil) {
				t.Fatalf("a delta: %v", err)
			} else if err == nil {
				return
			}
			record := transfer(t, vm, "c")
			if record.Disks[0].Doubt != "" || len(record.Points()) > 0 {
				t.Errorf("after the resync: doubt %q, points %v", record.Disks[0].Doubt, record.Points())
			}
			wantDoubt(t, vm, "")
		})
	}
}

// wantDoubt looks at the files; an empty text is no doubt.
func wantDoubt(t *testing.T, vm *chain.VM, told string) {
	t.Helper()
	doubts, err := vm.Doubts()
	check(t, err)
	if told == "" && doubts[0] != "" || !strings.Contains(doubts[0], told) {
		t.Errorf("the doubt is %q, want %q", doubts[0], told)
	}
}

// What is found when the disks are opened is known without anybody looking, and what happens while they are open is found
// by the next commit or merge.
func TestALayerIsLookedAtBeforeItIsBuiltOn(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			h, layer := layered(t)
			c.do(t, layer)
			vm := h.start()
			check(t, vm.Acquire())
			wantRecorded(t, vm, c.told)
			check(t, vm.Release())

			h, layer = layered(t)
			vm = h.start()
			check(t, vm.Acquire())
			commit := ship(t, vm, "b")
			c.do(t, layer)
			if _, err := vm.Commit(commit); (c.told == "") != (err == nil) || err != nil && reason(err) != failure.ReasonReplicaRecord {
				t.Errorf("the commit: %v", err)
			}
			wantRecorded(t, vm, c.told)
			check(t, vm.Release())

			h, layer = layered(t)
			vm = h.start()
			check(t, vm.Acquire())
			cycle(t, vm, "b")
			c.do(t, layer)
			startMerge(t, vm)
			finishMerge(t, vm)
			wantRecorded(t, vm, c.told)
			check(t, vm.Release())
		})
	}
}

func wantRecorded(t *testing.T, vm *chain.VM, told string) {
	t.Helper()
	record, err := vm.Record()
	check(t, err)
	if doubt := record.Disks[0].Doubt; told == "" && doubt != "" || !strings.Contains(doubt, told) {
		t.Errorf("the doubt is %q, want %q", doubt, told)
	}
}

// A layer that others are merged into is this agent's to write until that is done, and nobody else's.
func TestAnInterruptedMergeIntoALayerIsNotTakenForAForeignWrite(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			h, layer := layered(t)
			vm := h.start()
			check(t, vm.Acquire())
			cycle(t, vm, "b")
			startMerge(t, vm)
			h.end(t, vm, true)
			c.do(t, layer)
			vm = h.start()
			told := c.told
			if told == "written to" {
				told = "" // as the merge does, which writes again what it covers
			}
			wantDoubt(t, vm, told)
			check(t, vm.Acquire())
			startMerge(t, vm)
			finishMerge(t, vm)
			check(t, vm.Release())
			wantDoubt(t, vm, told)
			writeLast(t, layer)
			if doubts, err := h.start().Doubts(); err != nil || doubts[0] == "" {
				t.Errorf("a foreign write after the merge is not seen: %v", err)
			}
		})
	}
}
