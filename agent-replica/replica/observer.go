package replica

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"vmreplica/agent-replica/authorization"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/internal/failure"
)

// observer knows how all VMs stand. It looks at their files from time to time, because only that shows what
// others did to them.
type observer struct {
	registry  *chain.Registry
	merger    *merge.Merger
	book      *authorization.Book
	obstacles *obstacles
	log       *slog.Logger

	mu     sync.Mutex
	doubts map[string][]string
}

func newObserver(registry *chain.Registry, merger *merge.Merger, book *authorization.Book, obstacles *obstacles,
	log *slog.Logger) *observer {
	return &observer{
		registry: registry, merger: merger, book: book, obstacles: obstacles, log: log, doubts: map[string][]string{},
	}
}

// Run looks at the files of every VM, at once and then each lookInterval, until ctx ends.
func (o *observer) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	for {
		if err := o.look(); err != nil {
			o.log.Error("the VMs' files could not be looked at", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (o *observer) look() error {
	records, err := o.registry.Table().List()
	if err != nil {
		return err
	}
	found := map[string][]string{}
	for _, record := range records {
		if !record.Prepared || record.Releasing || record.Failover != nil {
			continue
		}
		doubts, err := o.registry.VM(record.VM).Doubts()
		if err != nil {
			o.log.Error("a VM's files could not be looked at", "vm", record.VM, "error", err)
			continue
		}
		o.report(record.VM, doubts)
		found[record.VM] = o.unrecorded(record.VM, doubts)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubts = found
	return nil
}

// unrecorded leaves those doubts that only looking shows: files that are missing. The others are in the record,
// until a commit answers them.
func (o *observer) unrecorded(vm string, doubts []string) []string {
	record, err := o.registry.Table().Get(vm)
	if err != nil || len(record.Disks) != len(doubts) {
		return nil
	}
	rest := slices.Clone(doubts)
	for i, d := range record.Disks {
		if d.Doubt != "" {
			rest[i] = ""
		}
	}
	return rest
}

// report logs doubts that are new.
func (o *observer) report(vm string, doubts []string) {
	o.mu.Lock()
	known := o.doubts[vm]
	o.mu.Unlock()
	for _, doubt := range doubts {
		if doubt != "" && !slices.Contains(known, doubt) {
			o.log.Warn("the replica's files are not as the agent left them", "vm", vm, "doubt", doubt)
		}
	}
}

// observe is how one VM stands. A doubt that the record holds shows at once, a missing file at the next look.
func (o *observer) observe(record chain.Record) observation {
	o.mu.Lock()
	looked := o.doubts[record.VM]
	o.mu.Unlock()
	doubts := make([]string, len(record.Disks))
	for i, d := range record.Disks {
		doubts[i] = d.Doubt
		if d.Doubt == "" && i < len(looked) {
			doubts[i] = looked[i]
		}
	}
	vm := o.registry.VM(record.VM)
	seen := observation{
		record: record, doubts: doubts, merge: o.merger.Status(record.VM), doing: vm.Doing(), readers: vm.Readers(),
	}
	if full, waits := o.obstacles.waiting(record.VM); waits && record.Transfer != nil {
		seen.full = &full
	}
	if record.Failover != nil {
		seen.doubts = nil // the machine writes to the disks
		return seen
	}
	_, err := o.book.Get(record.Authorization)
	seen.withdrawn = err != nil && failure.Find(err).Reason == failure.ReasonNotFound
	return seen
}

// all is how every VM stands, by name.
func (o *observer) all() ([]observation, error) {
	records, err := o.registry.Table().List()
	if err != nil {
		return nil, err
	}
	observations := make([]observation, len(records))
	for i, record := range records {
		observations[i] = o.observe(record)
	}
	return observations, nil
}
