package relationship

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"vmreplica/agent-primary/qmp"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/durable"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// Config is what the relationships of an agent share.
type Config struct {
	Store    state.Store
	Requests state.Requests
	Events   *event.Log
	Images   tracking.Images
	Replicas Replicas
	// Attempt runs one attempt of a resync: resync.Attempt.
	Attempt func(context.Context, resync.Peer, resync.Options) (resync.Outcome, error)
	Budget  *resync.Budget
	Limits  resync.Limits
	Slots   *Slots
	// CheckInterval is how often the images of a VM at rest are looked at, ReconcileInterval how often the replica
	// is asked; zero means 30 s and 5 min.
	CheckInterval, ReconcileInterval time.Duration
	// Ship sends rounds and a cut: ship.CatchUp.
	Ship       func(context.Context, ship.Peer, ship.Options) (ship.Outcome, error)
	ShipLimits ship.Limits
	// Logs is the agent's own directory of HRLs.
	Logs durable.Dir
	// CopyBeforeWrite bounds the memory in which cuts are kept readable.
	CopyBeforeWrite *tracking.Budget
	// Monitor asks a machine's monitor at a socket what it does with exports: qmp.Allowed.Snapshots. nil asks none.
	Monitor func(ctx context.Context, socket string, exports []string) ([]qmp.Found, error)
	// DetachGrace is how long disks stay open that nobody uses.
	DetachGrace time.Duration
	Log         *slog.Logger
}

// Defaults of Config.
const (
	defaultCheckInterval     = 30 * time.Second
	defaultReconcileInterval = 5 * time.Minute
)

// Manager is the relationships of an agent. Methods may be called concurrently; changes wait for Run.
type Manager struct {
	config Config
	starts chan *owner
	ended  chan struct{} // closed when Run has ended

	mu     sync.Mutex
	owners map[string]*owner // by VM; guarded by mu
	making map[string]bool   // VMs that are being created or removed; guarded by mu
}

// Open reads the records. Nothing is done about them before Run.
func Open(config Config) (*Manager, error) {
	if config.CheckInterval == 0 {
		config.CheckInterval = defaultCheckInterval
	}
	if config.ReconcileInterval == 0 {
		config.ReconcileInterval = defaultReconcileInterval
	}
	m := &Manager{
		config: config, starts: make(chan *owner), ended: make(chan struct{}),
		owners: map[string]*owner{}, making: map[string]bool{},
	}
	err := config.Store.View(func(tx state.Tx) error {
		saved, err := records(tx)
		for _, record := range saved {
			m.owners[record.Name] = newOwner(&m.config, record)
		}
		return err
	})
	return m, err
}

// Run lets every relationship go on where it was, until ctx ends; it returns when nothing of them runs.
func (m *Manager) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer close(m.ended)
	defer running.Wait()
	for _, o := range m.all() {
		running.Go(func() { o.run(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-m.starts:
			running.Go(func() { o.run(ctx) })
		}
	}
}

// adopt puts a new record's owner to work.
func (m *Manager) adopt(ctx context.Context, r Record) error {
	o := newOwner(&m.config, r)
	select {
	case m.starts <- o:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.ended:
		return failure.New(failure.Cancelled, failure.ReasonShuttingDown, "the agent is shutting down")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owners[r.Name] = o
	return nil
}

func (m *Manager) all() []*owner {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make([]*owner, 0, len(m.owners))
	for _, name := range slices.Sorted(maps.Keys(m.owners)) {
		found = append(found, m.owners[name])
	}
	return found
}

func (m *Manager) owner(vm string) (*owner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o, known := m.owners[vm]; known {
		return o, nil
	}
	if err := replication.CheckName("VM", vm); err != nil {
		return nil, err
	}
	return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "no such virtual machine is replicated here").
		On(vm, "").Try("List those that are: vmreplica get")
}

// reserve keeps a VM's name for one creation or removal at a time.
func (m *Manager) reserve(vm string) (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.making[vm] {
		return nil, failure.New(failure.Conflict, failure.ReasonWrongState, "the virtual machine is being enabled or removed").
			On(vm, "").Try("Repeat it in a moment.")
	}
	m.making[vm] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.making, vm)
	}, nil
}
