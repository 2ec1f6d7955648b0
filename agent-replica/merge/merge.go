// Package merge copies committed layers into what lies below them, deletes what nothing refers to any more, and finishes
// after a restart what was interrupted.
//
// Vocabulary. A step is one thing that a record asks for: to clean, or to merge a layer of a disk. The layer's target is
// what lies directly below it, the base or another layer. The balloon of a layer holds the space that its merge will take;
// that of a recovery point which is given up has none, because what it frees is as much as it takes.
//
// Invariants. A merge is redo-only: everything that the layer holds is written to the target, so doing it again, from
// the start or from where an earlier attempt had flushed, ends the same. Within a disk the layer whose merge has begun
// goes first, then the lowest. A layer that stands on a recovery point is not merged, nor one whose target somebody reads
// and which he does not read himself. What a layer holds as zeros is zeros in the target, never left to what is below it.
//
//	record: the layer is merging; a base as the target is being written
//	give the target the layer's identity, where their formats have one
//	copy every extent that the layer holds into the target
//	flush the target
//	seal a layer as the target anew with the parent that it has
//	give the layer above, when it is committed, the target as its parent
//	settle a base: its container is closed in order, its times are durable as well
//	record: the layer is gone, its files are garbage, a base has its new stamp
//	delete the garbage; sync the directory
//	record: the garbage is gone
//
// After a crash the record says which of these is next; nothing else is asked. While a merge runs the view of the
// disk does not change, because the layer covers what is being written below it.
//
// Another program finds no chain that it could misread meanwhile. From the first step the layer names a parent whose
// identity the target no longer has, so it and what stands on it are refused. The layer above names the target only when
// that holds all of the layer, and then by the identity that it knew the layer by; redoing the merge from there
// writes to the target what it holds. Formats without identities, qcow2 and raw, name files alone; there a merge that is
// redone makes every byte of the target that a reader of the chain can see what it was.
//
// A failover is brought to its end here, because nobody else knows when nothing is merged: when its transfer's stream has
// ended, what it discards is dropped; then all that is left is merged, and when nobody reads any more the disks are let go.
//
// A storage that is full, an image in use and a file that is missing are waited out. Any other error of the
// storage ends the VM's merges until the agent is started anew: what a failed sync has lost in memory cannot be
// known, and a new start redoes the copy.
package merge

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/transport"
)

// Space gives back the room that was held for merges.
type Space interface {
	Balloon(file string) *storage.Balloon
}

// Config is what a Merger works on.
type Config struct {
	Registry *chain.Registry
	Space    Space
	// Events is told when a merge waits; nil keeps nothing.
	Events *event.Log
	Log    *slog.Logger
	// Parallel is how many VMs merge at a time; 0 means 1.
	Parallel int
}

// Retrying waits between these while time may cure what stands in the way.
const (
	firstWait   = time.Second
	longestWait = time.Minute
)

// Merger does the merges of all VMs.
type Merger struct {
	config Config
	slots  chan struct{}

	mu       sync.Mutex
	statuses map[string]*Status
	// woken are VMs whose record has changed; signal has room for one.
	woken  map[string]bool
	signal chan struct{}
	// resume is where a merge that ran out of space goes on; what lies before it is flushed.
	resume map[string]position
}

// Status is how a VM's merges stand.
type Status struct {
	// Disk is the one being merged; empty when none is.
	Disk string
	// Merged and Total are bytes of the layer.
	Merged, Total int64
	// Problem is what stands in the way, nil when nothing does. Since is when it was first seen; with Final it
	// stands until the agent is started anew.
	Problem *failure.Error
	Since   time.Time
	Final   bool
	// Held says that layers wait for nothing but a reader of what they would be merged into.
	Held bool
}

// New makes a Merger that does nothing before Run.
func New(config Config) *Merger {
	return &Merger{
		config:   config,
		slots:    make(chan struct{}, max(1, config.Parallel)),
		statuses: map[string]*Status{},
		woken:    map[string]bool{},
		signal:   make(chan struct{}, 1),
		resume:   map[string]position{},
	}
}

// Status is how the VM's merges stand at this moment.
func (m *Merger) Status(vm string) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if status := m.statuses[vm]; status != nil {
		return *status
	}
	return Status{}
}

// Run finishes what was interrupted, then merges whatever commits, until ctx ends. No merge runs when it returns.
func (m *Merger) Run(ctx context.Context) error {
	stop := m.config.Registry.Table().Observe(m.wake)
	defer stop()
	records, err := m.config.Registry.Table().List()
	if err != nil {
		return err
	}
	for _, record := range records {
		m.wake(record.VM)
	}
	return m.dispatch(ctx)
}

// dispatch keeps one worker for each VM that was woken.
func (m *Merger) dispatch(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	ended := make(chan string)
	running, again := map[string]bool{}, map[string]bool{}
	start := func(vm string) {
		if running[vm] {
			again[vm] = true
			return
		}
		running[vm] = true
		workers.Go(func() {
			m.work(ctx, vm)
			select {
			case ended <- vm:
			case <-ctx.Done():
			}
		})
	}
	for {
		select {
		case <-m.signal:
			for vm := range m.takeWoken() {
				start(vm)
			}
		case vm := <-ended:
			running[vm] = false
			if again[vm] {
				again[vm] = false
				start(vm)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// wake says that a VM's record may ask for something.
func (m *Merger) wake(vm string) {
	m.mu.Lock()
	m.woken[vm] = true
	m.mu.Unlock()
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

func (m *Merger) takeWoken() map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	woken := m.woken
	m.woken = map[string]bool{}
	return woken
}

// work does what the VM's record asks for, until nothing is left, ctx ends, or only a restart helps.
func (m *Merger) work(ctx context.Context, vm string) {
	if m.failedFor(vm) {
		return
	}
	backoff := transport.NewBackoff(firstWait, longestWait, nil)
	for ctx.Err() == nil {
		err := m.Settle(ctx, vm)
		if err == nil || ctx.Err() != nil {
			m.cured(vm)
			return
		}
		problem := failure.Find(failure.Locate(storage.Failure(err), vm, ""))
		final := !curable(problem)
		m.troubled(vm, problem, final)
		if final {
			return
		}
		wait := time.NewTimer(backoff.Next())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// failedFor says whether this VM's merges have ended until a restart. What was said of a VM of the same name that
// is gone does not count.
func (m *Merger) failedFor(vm string) bool {
	if !m.Status(vm).Final {
		return false
	}
	record, err := m.config.Registry.Table().Get(vm)
	if err != nil || len(record.Disks) == 0 || record.CreateTime.After(m.Status(vm).Since) {
		m.cured(vm)
		return false
	}
	return true
}

// curable says whether trying again may help without a restart of the agent.
func curable(err *failure.Error) bool {
	switch err.Reason {
	case failure.ReasonStorageFull, failure.ReasonWrongState, failure.ReasonImageInUse, failure.ReasonImageMissing,
		failure.ReasonBaseMissing:
		return true
	}
	return failure.Retryable(err)
}

func (m *Merger) troubled(vm string, problem *failure.Error, final bool) {
	m.mu.Lock()
	status := m.status(vm)
	known := status.Problem != nil && status.Problem.Reason == problem.Reason && status.Final == final
	if !known {
		status.Since = time.Now()
	}
	status.Problem, status.Final = problem, final
	m.mu.Unlock()
	if known || problem.Reason == failure.ReasonWrongState {
		return
	}
	m.config.Log.Warn("merge waits", "vm", vm, "reason", problem.Reason, "error", problem.Error(), "final", final)
	if m.config.Events == nil {
		return
	}
	happened := event.OperationFailed(vm, problem.Disk, "merge", problem.Reason, problem.Message)
	if err := m.config.Events.Record(happened); err != nil {
		m.config.Log.Error("an event could not be recorded", "vm", vm, "error", err)
	}
}

func (m *Merger) cured(vm string) {
	m.mu.Lock()
	status := m.statuses[vm]
	delete(m.statuses, vm)
	if status != nil && status.Held {
		m.statuses[vm] = &Status{Held: true}
	}
	m.mu.Unlock()
	if status != nil && status.Problem != nil {
		m.config.Log.Info("merge recovered", "vm", vm, "after", time.Since(status.Since).Round(time.Second))
	}
}

func (m *Merger) setHeld(vm string, held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if held || m.statuses[vm] != nil {
		m.status(vm).Held = held
	}
}

// status is the VM's, to be changed under mu.
func (m *Merger) status(vm string) *Status {
	if m.statuses[vm] == nil {
		m.statuses[vm] = &Status{}
	}
	return m.statuses[vm]
}
