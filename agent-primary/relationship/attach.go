package relationship

import (
	"context"
	"strings"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/failure"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
)

// ExportName is what an NBD client calls a disk.
func ExportName(vm, disk string) string { return vm + "/" + disk }

// Attach opens a disk for an NBD client by its export's name. All disks of the VM are opened with it: they are cut at one
// instant. Each success is answered by one Detach. Failures: NOT_FOUND, WRONG_STATE while the VM is not prepared,
// UNSUPPORTED, and those of opening the images and their logs.
func (m *Manager) Attach(ctx context.Context, export string) (nbd.Export, error) {
	vm, disk, _ := strings.Cut(export, "/")
	o, err := m.owner(vm)
	if err != nil {
		return nil, err
	}
	open, err := o.attach(ctx)
	if err != nil {
		o.log.Error("the machine was refused its disks", "error", err)
		return nil, err
	}
	for _, attached := range open.exports {
		if attached.id == disk {
			attached.connections.Add(1)
			return attached, nil
		}
	}
	o.machine.release()
	return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the virtual machine has no such disk").On(vm, disk)
}

// Detach ends a client's use of a disk.
func (m *Manager) Detach(export nbd.Export) {
	if attached, ok := export.(*attachment); ok {
		attached.connections.Add(-1)
		attached.machine.release()
	}
}

// Exports are the names of all disks that may be attached.
func (m *Manager) Exports() []string {
	var names []string
	for _, o := range m.all() {
		record := o.record()
		for _, spec := range record.Spec.Disks {
			if record.Prepared && tracking.CheckAttachable(spec) == nil {
				names = append(names, ExportName(record.Name, spec.ID))
			}
		}
	}
	return names
}

// attach opens the disks for a machine. A worker that has the images open as nobody writes to them lets them go first, and
// goes on with what is tracked.
func (o *owner) attach(ctx context.Context) (*opened, error) {
	if !o.machine.isOpen() {
		if _, _, err := o.apply(ctx, change{freeze: true}); err != nil {
			return nil, err
		}
		defer func() { _, _, _ = o.apply(context.WithoutCancel(ctx), change{thaw: true}) }() // fails where the owner has ended
	}
	open, _, err := o.machine.acquire(ctx)
	return open, err
}

// Obstacle is why a disk cannot be attached as things are; nil when it can.
func (m *Manager) Obstacle(record Record, spec replication.DiskSpec) error {
	if err := record.mayChange(); err != nil {
		return err
	}
	return tracking.CheckAttachable(spec)
}
