package points

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// DefaultInterval is between two points.
const DefaultInterval = time.Hour

// retryInterval is how soon a point that could not be sealed is tried again.
const retryInterval = time.Minute

// Config is what a Keeper works on.
type Config struct {
	Registry *chain.Registry
	Log      *slog.Logger
	// Interval is the time between two points; 0 stands for DefaultInterval.
	Interval time.Duration
}

// Keeper seals and gives up the points of all VMs.
type Keeper struct {
	config Config

	mu sync.Mutex
	// woken are VMs whose record has changed; signal has room for one.
	woken  map[string]bool
	signal chan struct{}

	// next is when a VM is looked at though its record does not change, and failed what stood in the way of its last point.
	// Run's alone.
	next   map[string]time.Time
	failed map[string]failed
}

// failed is why a point could not be made, and when that is tried again: an attempt changes the record, which wakes.
type failed struct {
	reason string
	until  time.Time
}

// New makes a Keeper that does nothing before Run.
func New(config Config) *Keeper {
	if config.Interval == 0 {
		config.Interval = DefaultInterval
	}
	return &Keeper{
		config: config, woken: map[string]bool{}, signal: make(chan struct{}, 1),
		next: map[string]time.Time{}, failed: map[string]failed{},
	}
}

// Run looks at every VM when its record has changed or a point is due, one at a time, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	stop := k.config.Registry.Table().Observe(k.wake)
	defer stop()
	records, err := k.config.Registry.Table().List()
	if err != nil {
		return err
	}
	for _, record := range records {
		k.wake(record.VM)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-k.signal:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		for _, vm := range k.takeDue(time.Now()) {
			k.look(ctx, vm)
		}
		if at, waits := k.earliest(); waits {
			timer.Reset(time.Until(at))
		}
	}
}

// wake says that a VM's record may have changed, or that a reader of it has gone.
func (k *Keeper) wake(vm string) {
	k.mu.Lock()
	k.woken[vm] = true
	k.mu.Unlock()
	select {
	case k.signal <- struct{}{}:
	default:
	}
}

// takeDue are the VMs that were woken, and those whose time has come.
func (k *Keeper) takeDue(now time.Time) []string {
	k.mu.Lock()
	woken := k.woken
	k.woken = map[string]bool{}
	k.mu.Unlock()
	for vm, at := range k.next {
		if !now.Before(at) {
			woken[vm] = true
		}
	}
	var due []string
	for vm := range woken {
		delete(k.next, vm)
		due = append(due, vm)
	}
	slices.Sort(due)
	return due
}

func (k *Keeper) earliest() (at time.Time, waits bool) {
	for _, next := range k.next {
		if !waits || next.Before(at) {
			at, waits = next, true
		}
	}
	return at, waits
}

// look does what a VM's record asks for now and notes when to look again.
func (k *Keeper) look(ctx context.Context, vm string) {
	now, before := time.Now(), k.failed[vm]
	if now.Before(before.until) {
		k.next[vm] = before.until
		return
	}
	delete(k.failed, vm)
	next, err := k.keep(ctx, vm, now.UTC())
	if !next.IsZero() {
		k.next[vm] = next
	}
	if err == nil {
		return
	}
	switch reason := failure.Find(err).Reason; reason {
	case failure.ReasonWrongState, failure.ReasonLimit, failure.ReasonNotFound:
		// The record has changed, or will: that wakes.
	default:
		k.next[vm] = now.Add(retryInterval)
		k.failed[vm] = failed{reason: reason, until: k.next[vm]}
		if before.reason != reason {
			k.config.Log.Warn("a recovery point could not be kept or given up", "vm", vm, "reason", reason, "error", err)
		}
	}
}

// keep gives up what is in excess and seals what is due; next is Due's.
func (k *Keeper) keep(ctx context.Context, name string, now time.Time) (next time.Time, err error) {
	vm := k.config.Registry.VM(name)
	record, err := vm.Record()
	if err != nil {
		return time.Time{}, err
	}
	due, next := Due(record, now, k.config.Interval)
	adding := 0
	if due {
		adding = 1
	}
	for _, point := range Excess(record, adding) {
		if isRead(vm, point) {
			return next, nil // its reader's end wakes
		}
		if _, err := vm.DropPoint(point); err != nil {
			return next, err
		}
	}
	if !due {
		return next, nil
	}
	if err := seal(ctx, vm, now); err != nil {
		return time.Time{}, err
	}
	k.config.Log.Info("a recovery point is kept", "vm", name, "point", record.Cut, "time", record.Newest().Time)
	return now.Add(k.config.Interval), nil
}

func isRead(vm *chain.VM, point replication.ID) bool {
	return slices.ContainsFunc(vm.Readers(), func(r chain.Reader) bool { return !r.Newest && r.Point.ID == point })
}

// seal opens the disks for as long as it takes.
func seal(ctx context.Context, vm *chain.VM, now time.Time) error {
	release, err := vm.AwaitHold(ctx, chain.ToSeal)
	if err != nil {
		return err
	}
	defer release()
	if err := vm.Acquire(); err != nil {
		return err
	}
	_, err = vm.SealPoint(now)
	return errors.Join(err, vm.Release())
}
