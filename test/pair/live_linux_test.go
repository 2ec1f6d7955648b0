package pair_test

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// live is a machine that runs on an image whose writes are tracked, and what its primary knows of the replica.
type live struct {
	t            *testing.T
	peer         relationship.Transfers
	disk         *tracking.Disk
	group        *tracking.Group
	lineage, cut replication.ID
	root         blockdiff.Hash
	progress     resync.Progress
	shipped      ship.Progress
}

// attach runs a machine on the image at path; copy-before-write keeps so many bytes.
func attach(t *testing.T, path string, peer relationship.Transfers, budget int64) *live {
	t.Helper()
	dir, err := durable.OpenDir(filepath.Dir(path))
	must(t, err)
	file, err := dir.Open(filepath.Base(path), durable.ReadWrite)
	must(t, err)
	image, err := raw.Open(file, raw.Options{Path: path, Access: imagelock.Write})
	must(t, err)
	l := &live{t: t, peer: peer}
	l.disk, err = tracking.OpenLive(tracking.LiveOptions{
		ID: diskID, Image: image, Logs: dir, Log: diskID + ".hrl", Known: hrl.Disk{Identity: replication.NewID()},
		Lost: func(hrl.Loss) error { return nil },
	})
	must(t, err)
	l.group = tracking.NewGroup([]*tracking.Disk{l.disk}, tracking.NewBudget(budget))
	t.Cleanup(func() {
		must(t, l.disk.Close())
		must(t, dir.Close())
	})
	return l
}

// retried tries until it goes through, each time from where the last one came to.
func (l *live) retried(what string, try func(context.Context) error) {
	l.t.Helper()
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if attempt == 100 || !failure.Retryable(err) {
			l.t.Fatalf("%s, attempt %d: %v", what, attempt, err)
		}
	}
}

// begin makes tracking exact from here on.
func (l *live) begin() tracking.Cut {
	l.t.Helper()
	cuts, err := l.group.Begin(l.t.Context(), replication.NewID())
	must(l.t, err)
	return cuts[0]
}

// marked is what a resync begins with that compares nothing.
func (l *live) marked() tracking.Cut { return tracking.Cut{ID: l.lineage, Since: l.lineage} }

// resync compares while the machine writes, catches up, and commits. From what is marked nothing is compared.
func (l *live) resync(kind replication.ResyncKind, cut tracking.Cut) {
	l.t.Helper()
	marks := l.lineage != "" && cut == l.marked()
	transfer, lineage := replication.NewID(), replication.NewID()
	l.retried("a resync", func(ctx context.Context) error {
		outcome, err := resync.Attempt(ctx, l.peer, resync.Options{
			Transfer: transfer, Kind: kind, Proof: blockdiff.BLAKE3, Budget: resync.NewBudget(64 << 20),
			Limits: resync.DefaultLimits(), Lineage: l.lineage, Cut: l.cut,
			Disks: []resync.Disk{{ID: diskID, Source: l.group.Source(0), Cut: cut, MarksOnly: marks, Progress: &l.progress}},
		})
		if err != nil {
			return err
		}
		root := outcome.Disks[0].Root
		if marks {
			root = l.root
		}
		return l.catchUp(ctx, transfer, lineage, root, outcome.Disks[0].Session)
	})
	must(l.t, l.group.Follow(lineage))
}

// delta is one cycle.
func (l *live) delta() {
	l.t.Helper()
	transfer := replication.NewID()
	l.retried("a delta", func(ctx context.Context) error {
		cursors, err := l.peer.Begin(ctx, resync.Begin{
			Transfer: transfer, Kind: replication.KindDelta, Lineage: l.lineage, Cut: l.cut,
			Disks: []resync.BeginDisk{{ID: diskID, SizeBytes: l.disk.Size(), LogicalSectorSize: 512}},
		})
		if err != nil {
			return err
		}
		return l.catchUp(ctx, transfer, l.lineage, l.root, cursors[0].Session)
	})
}

// catchUp ships what is marked and commits it.
func (l *live) catchUp(ctx context.Context, transfer, lineage replication.ID, root blockdiff.Hash, session uint64) error {
	cut := replication.NewID()
	limits := ship.DefaultLimits()
	limits.FrameBytes = 64 << 10
	outcome, err := ship.CatchUp(ctx, l.peer, ship.Options{
		Transfer: transfer, Cut: cut, Proof: blockdiff.BLAKE3, Group: l.group, Limits: limits, Progress: &l.shipped,
		Disks: []ship.Disk{{ID: diskID, Session: session}},
	})
	if err != nil {
		return err
	}
	_, err = l.peer.Commit(ctx, resync.Commit{
		Transfer: transfer, Lineage: lineage, Cut: cut, CutTime: outcome.CutTime,
		Roots: []resync.DiskRoot{{Disk: diskID, Root: root, Shipment: cut, ShipmentRoot: outcome.Disks[0].Root}},
	})
	if err != nil {
		must(l.t, outcome.Epoch.Abort())
		return err
	}
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	must(l.t, err)
	l.lineage, l.cut, l.root = lineage, cut, prover.Extend(root, outcome.Disks[0].Root)
	return outcome.Epoch.Ack()
}

// counter is a program of the machine: it writes the numbers from 1 on, one after another, each to the next of its blocks
// in turn. What the blocks hold at any instant follows from the highest of them.
type counter struct {
	live    *live
	running sync.WaitGroup
	stopped atomic.Bool
	last    atomic.Uint64
}

const (
	counterBlocks = 64
	counterStride = 60 << 10 // so that every block is in another part of the disk
)

func (l *live) count() *counter {
	c := &counter{live: l}
	c.running.Go(func() {
		for n := uint64(1); !c.stopped.Load(); n++ {
			var content [4096]byte
			for off := 0; off < len(content); off += 8 {
				binary.LittleEndian.PutUint64(content[off:], n)
			}
			if _, err := l.disk.WriteAt(content[:], int64(n%counterBlocks)*counterStride); err != nil {
				l.t.Error(err)
				return
			}
			c.last.Store(n)
			if n%8 == 0 {
				time.Sleep(500 * time.Microsecond)
			}
		}
	})
	return c
}

// stop ends the program.
func (c *counter) stop() {
	c.stopped.Store(true)
	c.running.Wait()
}

// instant says of which number content is the instant after, and fails the test when it is none.
func (c *counter) instant(content []byte) uint64 {
	c.live.t.Helper()
	held := func(block uint64) []byte { return content[block*counterStride:][:4096] }
	highest := uint64(0)
	for block := range uint64(counterBlocks) {
		highest = max(highest, binary.LittleEndian.Uint64(held(block)))
	}
	for n := highest; n > 0 && n+counterBlocks > highest; n-- {
		block := held(n % counterBlocks)
		for off := 0; off < len(block); off += 8 {
			if got := binary.LittleEndian.Uint64(block[off:]); got != n {
				c.live.t.Fatalf("the disk has number %d and, where %d belongs, %d: it was never so", highest, n, got)
			}
		}
	}
	return highest
}

// held is what the replica holds.
func (w *world) held() []byte {
	w.t.Helper()
	vm := w.registry.VM(vmName)
	pin, err := vm.Pin("", "a test")
	must(w.t, err)
	defer func() { must(w.t, pin.Release()) }()
	reader, err := pin.Disk(diskID)
	must(w.t, err)
	content := make([]byte, reader.Size())
	_, err = reader.ReadAt(content, 0)
	must(w.t, err)
	return content
}

// TestARunningMachine: a first copy or a resync while the machine writes, then cycles, then a resync of marks alone. Every
// commit is one instant of the machine, not before the one that had passed when the cycle began.
func TestARunningMachine(t *testing.T) {
	zeros := make([]byte, 4*mib)
	for name, c := range map[string]struct {
		replica []byte
		kind    replication.ResyncKind
		budget  int64
	}{
		"a first copy":                   {nil, replication.KindInitial, 16 * mib},
		"a resync":                       {random(3, len(zeros)), replication.KindResync, 16 * mib},
		"a resync that keeps few blocks": {random(3, len(zeros)), replication.KindResync, 128 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, zeros, c.replica, nil)
			l := attach(t, w.image, w.link.Transfers(w.proof), c.budget)
			cut := l.begin()
			program := l.count()
			defer program.stop()
			l.resync(c.kind, cut)
			for cycle := range 6 {
				before := program.last.Load()
				if cycle == 3 {
					l.resync(replication.KindResync, l.marked())
				} else {
					l.delta()
				}
				if instant := program.instant(w.held()); instant < before {
					t.Fatalf("cycle %d brought number %d, and %d had been written", cycle, instant, before)
				}
				w.merge()
			}
			program.stop()
			if program.last.Load() < 4*counterBlocks {
				t.Errorf("the machine wrote only %d times", program.last.Load())
			}
			l.delta()
			w.merge()
			w.equal()
			record, err := w.registry.Table().Get(vmName)
			must(t, err)
			if record.Disks[0].Root != l.root || record.Cut != l.cut || record.Lineage != l.lineage {
				t.Errorf("the record has root %s and cut %s", record.Disks[0].Root, record.Cut)
			}
		})
	}
}

// A shipment cut off at any message is sent again, and nothing is lost or mixed.
func TestShipmentsCutAtEveryMessage(t *testing.T) {
	for after := 1; after < 40; after += 1 + after/4 {
		w := newWorld(t, random(1, 4*mib), random(1, 4*mib), nil)
		l := attach(t, w.image, w.link.Transfers(w.proof), 16*mib)
		l.resync(replication.KindResync, l.begin())
		program := l.count()
		time.Sleep(10 * time.Millisecond)
		cuts := 0
		w.mangle = func(_ *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream {
			if cuts++; cuts > 3 {
				return stream
			}
			left := after
			return cutter{stream, &left}
		}
		l.delta()
		program.stop()
		l.delta()
		if cuts < 2 {
			t.Fatalf("after %d messages: only %d streams", after, cuts)
		}
		w.merge()
		w.equal()
	}
}
