package replica

import (
	"log/slog"
	"sync"

	"vmreplica/agent-replica/storage"
	"vmreplica/internal/event"
)

// room tells of a full storage once for each VM that waits for it, and of its end once something was received again.
type room struct {
	storage *storage.Storage
	events  *event.Log
	log     *slog.Logger

	mu sync.Mutex
	// full are the disks that wait, by VM.
	full map[string]string
}

func newRoom(files *storage.Storage, events *event.Log, log *slog.Logger) *room {
	return &room{storage: files, events: events, log: log, full: map[string]string{}}
}

// Full implements receive.Room.
func (r *room) Full(vm, disk string) {
	r.mu.Lock()
	_, known := r.full[vm]
	r.full[vm] = disk
	r.mu.Unlock()
	if !known {
		r.record(event.StorageFull(vm, disk, r.storage.Path("."), r.free()))
	}
}

// Progress implements receive.Room.
func (r *room) Progress(vm string) {
	r.mu.Lock()
	disk, known := r.full[vm]
	delete(r.full, vm)
	r.mu.Unlock()
	if known {
		r.record(event.StorageRecovered(vm, disk, r.storage.Path("."), r.free()))
	}
}

// free is -1 when it cannot be known.
func (r *room) free() int64 {
	free, err := r.storage.Free()
	if err != nil {
		return -1
	}
	return free
}

func (r *room) record(happened event.Event) {
	if err := r.events.Record(happened); err != nil {
		r.log.Error("an event could not be recorded", "vm", happened.VM, "error", err)
	}
}
