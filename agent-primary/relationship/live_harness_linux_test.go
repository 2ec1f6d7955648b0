package relationship_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	places "vmreplica/internal/disk/images"
	"vmreplica/internal/durable"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// liveSize is no multiple of a block.
const liveSize = 3<<20 + 1536

// site is a primary with real images and logs, and a replica in memory that holds bytes.
type site struct {
	t         *testing.T
	dir       string
	allowed   *places.Images
	logs      durable.Dir
	store     state.Store
	budget    int64
	grace     time.Duration
	interval  time.Duration
	autoMode  replication.AutoResyncMode
	limit     int
	disks     []string
	replica   *copies
	duringCut func()
}

// copies are what a replica holds.
type copies struct {
	mu          sync.Mutex
	position    relationship.Position
	held, fresh map[string][]byte // committed, and of the open transfer
	down        bool
	loseReply   bool
	refuse      error
	commits     int
	kinds       []replication.ResyncKind
	marksOnly   []string
}

func newSite(t *testing.T, disks ...string) *site {
	t.Helper()
	s := &site{
		t: t, dir: t.TempDir(), budget: 64 << 20, interval: 30 * time.Millisecond, disks: disks,
		replica: &copies{held: map[string][]byte{}},
	}
	for i, name := range disks {
		content := bytes.Repeat([]byte{byte(i + 1), 7, 0, 3}, liveSize/4)
		if err := os.WriteFile(s.path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.allowed, err = places.New([]string{s.dir}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.allowed.Close() })
	logs := t.TempDir()
	if s.logs, err = durable.OpenDir(logs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.logs.Close() })
	if s.store, err = state.Open(filepath.Join(logs, "primary.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	return s
}

func (s *site) path(disk string) string { return filepath.Join(s.dir, disk) }

// start runs an agent over what the site holds.
func (s *site) start() agent {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	events, err := event.Open(s.store, log, time.Now)
	if err != nil {
		s.t.Fatal(err)
	}
	manager, err := relationship.Open(relationship.Config{
		Store: s.store, Requests: state.Requests{Clock: time.Now}, Events: events, Images: tracking.Allowed(s.allowed),
		Replicas: s.replica, Attempt: s.attempt, Ship: s.ship, Slots: relationship.NewSlots(3), Log: log, Logs: s.logs,
		CopyBeforeWrite: tracking.NewBudget(s.budget), DetachGrace: s.grace,
		CheckInterval: 20 * time.Millisecond, ReconcileInterval: 20 * time.Millisecond,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		manager.Run(ctx)
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	s.t.Cleanup(stop)
	return agent{Manager: manager, events: events, stop: stop}
}

// enabled is a running agent whose VM is ready for its first copy.
func (s *site) enabled() agent {
	s.t.Helper()
	a := s.start()
	asked := relationship.Create{Name: "web01", Spec: replication.Spec{
		ReplicaAddress: "replica:7443", Interval: s.interval, HRLLimitPercent: s.limit,
		AutoResync: replication.AutoResync{Mode: s.autoMode},
	}}
	for _, name := range s.disks {
		asked.Spec.Disks = append(asked.Spec.Disks, replication.DiskSpec{ID: name, Path: s.path(name), Format: replication.FormatRaw})
	}
	if _, err := a.Create(s.t.Context(), asked); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// replicating is a running agent whose VM is attached and in step.
func (s *site) replicating() (agent, []nbd.Export) {
	s.t.Helper()
	a := s.enabled()
	exports := s.attach(a)
	s.startResync(a, relationship.Start{Kind: replication.KindInitial})
	s.await(a, "the first copy", func(v relationship.View) bool {
		return v.State == replication.Replicating && v.Accumulated == 0 && v.Record.Active() == nil
	})
	return a, exports
}

// attach is the machine's: it lets go when the test ends, or when detach is called.
func (s *site) attach(a agent) []nbd.Export {
	s.t.Helper()
	var exports []nbd.Export
	for _, name := range s.disks {
		export, err := a.Attach(s.t.Context(), "web01/"+name)
		if err != nil {
			s.t.Fatal(err)
		}
		exports = append(exports, export)
	}
	return exports
}

func detach(a agent, exports []nbd.Export) {
	for _, export := range exports {
		a.Detach(export)
	}
}

func (s *site) startResync(a agent, asked relationship.Start) {
	s.t.Helper()
	if _, err := a.Start(s.t.Context(), "web01", asked, state.Request{}); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until the VM is as wanted.
func (s *site) await(a agent, what string, is func(relationship.View) bool) relationship.View {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		view, err := a.Get("web01")
		if err != nil {
			s.t.Fatal(err)
		}
		if is(view) {
			return view
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s did not come: state %v, cause %v %s, trouble %v, accumulated %d, resync %+v", what, view.State, view.Cause,
				view.Evidence, view.Trouble, view.Accumulated, view.Resync)
		}
	}
}

// inStep waits until the replica lacks nothing and compares every byte.
func (s *site) inStep(a agent) relationship.View {
	s.t.Helper()
	view := s.await(a, "a replica in step", func(v relationship.View) bool {
		return v.State == replication.Replicating && v.Accumulated == 0 && v.Delta == nil && v.Record.Active() == nil
	})
	for _, name := range s.disks {
		content, err := os.ReadFile(s.path(name))
		if err != nil {
			s.t.Fatal(err)
		}
		s.replica.mu.Lock()
		equal := bytes.Equal(content, s.replica.held[name])
		s.replica.mu.Unlock()
		if !equal {
			s.t.Fatalf("disk %s is said to be in step and is not", name)
		}
	}
	return view
}

// attempt stands for resync.Attempt: each disk is read whole through its source.
func (s *site) attempt(ctx context.Context, peer resync.Peer, o resync.Options) (resync.Outcome, error) {
	begin := resync.Begin{Transfer: o.Transfer, Kind: o.Kind, Restart: o.DiscardOther, Lineage: o.Lineage, Cut: o.Cut}
	for _, d := range o.Disks {
		if d.MarksOnly {
			begin.MarksOnly = append(begin.MarksOnly, d.ID)
		}
	}
	if _, err := peer.Begin(ctx, begin); err != nil {
		return resync.Outcome{}, err
	}
	outcome := resync.Outcome{}
	for _, d := range o.Disks {
		result := resync.DiskOutcome{ID: d.ID}
		if !d.MarksOnly {
			content := make([]byte, d.Source.Size())
			if _, err := d.Source.ReadAt(content, 0); err != nil {
				return outcome, err
			}
			if err := d.Source.Continuous(d.Cut); err != nil {
				return outcome, err
			}
			s.replica.mu.Lock()
			if o.Kind != replication.KindVerify {
				s.replica.fresh[d.ID] = content
			}
			result.Root, result.ReplicaRoot = sumOf(content), sumOf(s.replica.held[d.ID])
			if o.Kind != replication.KindVerify {
				result.ReplicaRoot = result.Root
			}
			s.replica.mu.Unlock()
		}
		outcome.Disks = append(outcome.Disks, result)
	}
	return outcome, ctx.Err()
}

func sumOf(content []byte) blockdiff.Hash {
	prover, _ := blockdiff.NewProver(blockdiff.BLAKE3)
	return prover.Leaf(append([]byte("x"), content...))
}

// ship stands for ship.CatchUp: one cut, its extents written into what was received.
func (s *site) ship(ctx context.Context, _ ship.Peer, o ship.Options) (ship.Outcome, error) {
	epoch, err := o.Group.Cut(ctx, o.Cut)
	if err != nil {
		return ship.Outcome{}, err
	}
	if s.duringCut != nil {
		s.duringCut()
	}
	outcome := ship.Outcome{Epoch: epoch, CutTime: time.Now().UTC(), Rounds: 1}
	for i, d := range o.Disks {
		sent, err := s.shipDisk(epoch, i, d.ID)
		if err != nil {
			return ship.Outcome{}, failure.Locate(err, "", d.ID)
		}
		outcome.Disks = append(outcome.Disks, ship.DiskOutcome{ID: d.ID, Root: blockdiff.Hash{9}, Bytes: sent})
	}
	return outcome, nil
}

func (s *site) shipDisk(epoch *tracking.Epoch, index int, id string) (sent int64, err error) {
	var ranges []tracking.Range
	for extent, err := range epoch.Extents(index) {
		if err != nil {
			return sent, err
		}
		ranges = append(ranges, extent)
	}
	for _, extent := range ranges {
		content := make([]byte, extent.Length)
		if err := epoch.ReadAt(index, content, extent.Offset); err != nil {
			return sent, err
		}
		if s.replica.isDown() {
			return sent, failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "cut off").Try("%v", epoch.Abort())
		}
		s.replica.mu.Lock()
		copy(s.replica.fresh[id][extent.Offset:], content)
		s.replica.mu.Unlock()
		if err := epoch.Sent(index, extent.Offset, extent.Length); err != nil {
			return sent, err
		}
		sent += extent.Length
	}
	return sent, nil
}

// cutOff lets the replica be away, or back.
func (c *copies) cutOff(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = away
}

func (c *copies) isDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down
}
