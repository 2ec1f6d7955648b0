package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
)

const (
	testVM   = "web01"
	testDir  = "p/web01"
	testSize = 64<<10 + 512
)

var diskIDs = []string{"root", "data"}

// world is a replica's rooms on a host in memory.
type world struct {
	kind     kind
	files    *storage.Storage
	dir      durable.Dir
	store    state.Store
	table    *chain.Table
	registry *chain.Registry
	merger   *Merger
	events   *event.Log
}

// kind is how a world keeps its layers and what is wrong with it.
type kind struct {
	// base is the format of the bases, none is raw; differencing chooses that of the layers.
	base         replication.Format
	differencing replication.Differencing
	// size is the disks'; testSize when it is 0.
	size int64
	// devices stand for the bases of disks.
	devices map[string]string
	// plain layers instead of the product's.
	plain bool
	// events are kept.
	events bool
	// store and storage change how the world behaves, to show that the test notices.
	store   func(state.Store, durable.Dir) state.Store
	storage func(chain.Storage) chain.Storage
	// drop are syncs that are not done.
	drop func(durabletest.Op) bool
}

func (k kind) bytes() int64 {
	if k.size == 0 {
		return testSize
	}
	return k.size
}

func openWorld(r *durabletest.Recorder, k kind) *world {
	dir := r.Dir()
	return worldOn(dir, storage.New(dir, nil), statetest.New(r), k)
}

func worldOn(dir durable.Dir, files *storage.Storage, store state.Store, k kind) *world {
	w := &world{kind: k, files: files, dir: dir, store: store}
	if k.store != nil {
		w.store = k.store(w.store, w.dir)
	}
	var seen chain.Storage = files
	if k.plain {
		seen = &plainLayers{Storage: seen, dir: w.dir}
	}
	if k.storage != nil {
		seen = k.storage(seen)
	}
	if k.events {
		w.events, _ = event.Open(w.store, slog.New(slog.DiscardHandler), time.Now)
	}
	w.table = chain.NewTable(w.store, w.events)
	w.registry = chain.NewRegistry(w.table, seen)
	w.merger = New(Config{Registry: w.registry, Space: files, Events: w.events, Log: slog.New(slog.DiscardHandler)})
	return w
}

func (w *world) vm() *chain.VM { return w.registry.VM(testVM) }

// models are the bytes of every disk.
type models map[string][]byte

func (m models) clone() models {
	cloned := models{}
	for id, content := range m {
		cloned[id] = slices.Clone(content)
	}
	return cloned
}

// adopt puts bases with content in place and prepares the VM over them.
func (w *world) adopt(rng *rand.Rand) (models, error) {
	content := models{}
	for _, id := range diskIDs {
		content[id] = make([]byte, w.kind.bytes())
		for i := range content[id][:w.kind.bytes()/2] {
			content[id][i] = byte(rng.Uint32())
		}
		if err := w.putBase(id, content[id]); err != nil {
			return nil, err
		}
	}
	_, err := w.registry.Prepare(w.prepare(true))
	return content, err
}

func (w *world) putBase(id string, content []byte) error {
	base := chain.Base{File: path.Join(testDir, id), Device: w.kind.devices[id], Format: w.kind.base}
	if base.Device == "" {
		if err := w.files.CreateBase(base, w.kind.bytes(), 512, false); err != nil {
			return err
		}
	}
	opened, err := w.files.OpenBase(base, 512)
	if err != nil {
		return err
	}
	_, err = opened.WriteAt(slices.Clone(content), 0)
	return errors.Join(err, opened.Flush(), opened.Close())
}

func (w *world) prepare(existing bool) chain.Prepare {
	p := chain.Prepare{VM: testVM, UID: newID(1), Primary: "primary", Directory: testDir, Term: 1, UseExisting: existing}
	for _, id := range diskIDs {
		p.Disks = append(p.Disks, chain.PrepareDisk{
			Geometry: w.geometry(id), Device: w.kind.devices[id], Format: w.kind.base, Differencing: w.kind.differencing,
		})
	}
	return p
}

func (w *world) geometry(id string) chain.Geometry {
	return chain.Geometry{ID: id, SizeBytes: w.kind.bytes(), LogicalSectorSize: 512}
}

func newID(n int) replication.ID { return replication.ID(fmt.Sprintf("%08x%024x", n, n)) }

// receive does what a transfer does: begin, write differing extents, save the cursor, prove. The open transfer's
// content becomes what it answers.
func (w *world) receive(rng *rand.Rand, transfer int, kind replication.ResyncKind, now models) (models, error) {
	b := chain.Begin{Term: 1, Transfer: newID(transfer), Kind: kind, Proof: blockdiff.BLAKE3}
	for _, id := range diskIDs {
		b.Disks = append(b.Disks, w.geometry(id))
	}
	record, err := w.vm().Record()
	if err != nil {
		return nil, err
	}
	b.Lineage, b.Cut, b.RecoveryPoints = record.Lineage, record.Cut, record.RecoveryPoints
	if record, err = w.vm().Begin(b); err != nil {
		return nil, err
	}
	next := now.clone()
	for _, id := range diskIDs {
		opened, err := w.vm().Disk(id)
		if err != nil {
			return nil, err
		}
		session := record.Cursor(id).Session + 1
		take := func(r *chain.Record) error {
			if kind == replication.KindDelta {
				return r.BeginShipment(b.Transfer, id, session, cutOf(transfer))
			}
			return r.TakeSession(b.Transfer, id, session)
		}
		if _, err := w.vm().Update(take); err != nil {
			return nil, err
		}
		for range 3 {
			if err := writeSome(rng, opened.Top(), next[id]); err != nil {
				return nil, err
			}
			if rng.IntN(2) == 0 {
				if err := opened.Top().Flush(); err != nil {
					return nil, err
				}
			}
		}
		if err := w.prove(opened, transfer, id, session, next[id]); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// writeSome changes the disk and its model alike.
func writeSome(rng *rand.Rand, to disk.Disk, model []byte) error {
	const unit = 4 << 10
	size := int64(len(model))
	start := rng.Int64N((size+unit-1)/unit) * unit
	end := min(start+unit*(1+rng.Int64N(4)), size)
	switch rng.IntN(5) {
	case 0:
		clear(model[start:end])
		return to.Zero(start, end-start)
	case 1:
		clear(model[start:end])
		return to.Unmap(start, end-start)
	}
	data := make([]byte, end-start)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	copy(model[start:end], data)
	_, err := to.WriteAt(data, start)
	return err
}

func (w *world) prove(opened *chain.Open, n int, id string, session uint64, content []byte) error {
	if err := opened.Top().Flush(); err != nil {
		return err
	}
	transfer := newID(n)
	save := func(r *chain.Record) error {
		if r.Cursor(id).MarksOnly {
			return r.FinishShipment(transfer, id, session, chain.Shipment{ID: cutOf(n), Root: rootOf(content)})
		}
		return errors.Join(
			r.SaveCursor(transfer, id, session, 1, blockdiff.Hash{1}),
			r.ProveDisk(transfer, id, session, rootOf(content)))
	}
	_, err := w.vm().Update(save)
	return err
}

func rootOf(content []byte) blockdiff.Hash {
	var root blockdiff.Hash
	copy(root[:], fmt.Sprintf("%016x", blockdiff.Digest(content[:blockdiff.BlockSize])))
	return root
}

func (w *world) commit(transfer int, content models) error {
	record, err := w.vm().Record()
	if err != nil {
		return err
	}
	c := chain.Commit{Transfer: newID(transfer), Term: 1, Lineage: newID(1000 + transfer), Cut: cutOf(transfer)}
	for _, id := range diskIDs {
		root := chain.Root{Disk: id, Root: rootOf(content[id])}
		if t := record.Cursor(id); t != nil && t.MarksOnly {
			root = chain.Root{Disk: id, Root: record.Disk(id).Root, Shipment: c.Cut, ShipmentRoot: root.Root}
			c.Lineage = record.Lineage
		}
		c.Roots = append(c.Roots, root)
	}
	_, err = w.vm().Commit(c)
	return err
}

// cutOf is what a transfer's commit establishes.
func cutOf(transfer int) replication.ID { return newID(2000 + transfer) }

// recover is what the start of the agent does.
func (w *world) recover() error { return w.merger.Settle(context.Background(), testVM) }

// view is the content of every disk through all layers.
func (w *world) view() (content models, err error) {
	if err := w.vm().Acquire(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.vm().Release()) }()
	content = models{}
	for _, id := range diskIDs {
		opened, err := w.vm().Disk(id)
		if err != nil {
			return nil, err
		}
		content[id] = make([]byte, w.kind.bytes())
		if _, err := opened.View().ReadAt(content[id], 0); err != nil && err != io.EOF {
			return nil, err
		}
	}
	return content, nil
}

// differs says in words how content is none of the wanted models; empty when it is one of them.
func differs(content models, wanted []models) string {
	var reasons []string
	for i, want := range wanted {
		reason := ""
		for _, id := range diskIDs {
			if at := firstDifference(content[id], want[id]); at >= 0 {
				reason = fmt.Sprintf("disk %s differs from content %d at byte %d", id, i, at)
			}
		}
		if reason == "" {
			return ""
		}
		reasons = append(reasons, reason)
	}
	return strings.Join(reasons, "; ")
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return 0
}
