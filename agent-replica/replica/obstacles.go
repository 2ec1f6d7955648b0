package replica

import (
	"log/slog"
	"sync"
	"time"

	"vmreplica/agent-replica/storage"
	"vmreplica/internal/event"
)

// obstacles tells once for each VM what stands in the way of its transfer: a full storage, until something was
// received again, and a disk that another program has open, until it could be opened.
type obstacles struct {
	storage *storage.Storage
	events  *event.Log
	log     *slog.Logger

	mu sync.Mutex
	// full are the disks that wait for room, by VM; inUse are the VMs with a disk in use.
	full  map[string]fullness
	inUse map[string]bool
}

// fullness is a disk, or the VM when disk is empty, that waits for room.
type fullness struct {
	disk, message string
	since         time.Time
}

func newObstacles(files *storage.Storage, events *event.Log, log *slog.Logger) *obstacles {
	return &obstacles{
		storage: files, events: events, log: log, full: map[string]fullness{}, inUse: map[string]bool{},
	}
}

// Full implements receive.Obstacles.
func (o *obstacles) Full(vm, disk, message string) {
	o.mu.Lock()
	before, known := o.full[vm]
	now := fullness{disk: disk, message: message, since: time.Now()}
	if known {
		now.since = before.since
	}
	o.full[vm] = now
	o.mu.Unlock()
	if !known {
		o.record(event.StorageFull(vm, disk, o.storage.Path("."), o.free()))
	}
}

// Progress implements receive.Obstacles.
func (o *obstacles) Progress(vm string) {
	o.mu.Lock()
	full, known := o.full[vm]
	delete(o.full, vm)
	o.mu.Unlock()
	if known {
		o.record(event.StorageRecovered(vm, full.disk, o.storage.Path("."), o.free()))
	}
}

// Ended implements receive.Obstacles.
func (o *obstacles) Ended(vm string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.full, vm)
	delete(o.inUse, vm)
}

// waiting says whether a VM's transfer waits for room.
func (o *obstacles) waiting(vm string) (full fullness, waits bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	full, waits = o.full[vm]
	return full, waits
}

// InUse implements receive.Obstacles.
func (o *obstacles) InUse(vm, disk, message string) {
	o.mu.Lock()
	known := o.inUse[vm]
	o.inUse[vm] = true
	o.mu.Unlock()
	if !known {
		o.record(event.ImageInUse(vm, disk, message))
	}
}

// Opened implements receive.Obstacles.
func (o *obstacles) Opened(vm string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.inUse, vm)
}

// free is -1 when it cannot be known.
func (o *obstacles) free() int64 {
	free, err := o.storage.Free()
	if err != nil {
		return -1
	}
	return free
}

func (o *obstacles) record(happened event.Event) {
	if err := o.events.Record(happened); err != nil {
		o.log.Error("an event could not be recorded", "vm", happened.VM, "error", err)
	}
}
