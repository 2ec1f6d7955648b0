package merge

import (
	"context"
	"errors"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/failure"
)

// Settle does what the VM's record asks for until it asks for nothing more. It is what recovery does at the start
// of the agent, too.
func (m *Merger) Settle(ctx context.Context, vmName string) error {
	vm := m.config.Registry.VM(vmName)
	record, err := vm.Record()
	if gone(err) {
		return nil
	}
	if err != nil || Next(record) == (Step{}) {
		return err
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	release, err := vm.AwaitHold(ctx, chain.ToMerge)
	if err != nil {
		return err
	}
	defer release()
	for {
		step, err := m.step(ctx, vm)
		if err != nil || step == (Step{}) {
			return err
		}
	}
}

// step does the next thing that the VM's record asks for and says what it was; the VM is held.
func (m *Merger) step(ctx context.Context, vm *chain.VM) (Step, error) {
	record, err := vm.Record()
	if gone(err) {
		return Step{}, nil
	}
	if err != nil {
		return Step{}, err
	}
	step := Next(record)
	switch {
	case step == (Step{}):
	case step.Clean:
		err = vm.Clean()
	default:
		err = m.mergeDisk(ctx, vm, step.Disk)
	}
	if err != nil {
		err = failure.Locate(storage.Failure(err), vm.Name(), step.Disk)
	}
	return step, err
}

func gone(err error) bool {
	return err != nil && failure.Find(err).Reason == failure.ReasonNotFound
}

// Step is what comes next for a VM; the zero Step is nothing.
type Step struct {
	// Clean is to delete garbage, or the record of an ended relationship.
	Clean bool
	// Disk is the disk whose lowest layer is to be merged.
	Disk string
}

// Next is what a record asks for. It depends on nothing else.
func Next(record chain.Record) Step {
	if len(record.Garbage) > 0 || record.Releasing {
		return Step{Clean: true}
	}
	for _, d := range record.Disks {
		if d.Waiting() > 0 {
			return Step{Disk: d.ID}
		}
	}
	return Step{}
}

// mergeDisk merges the lowest layer of a disk.
func (m *Merger) mergeDisk(ctx context.Context, vm *chain.VM, diskID string) (err error) {
	if err := vm.Acquire(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vm.Release()) }()
	record, err := vm.Record()
	if err != nil {
		return err
	}
	opened, err := vm.Disk(diskID)
	if err != nil {
		return err
	}
	started := time.Now()
	lowest := record.Disk(diskID).Layers[0]
	c := &copier{
		merger: m, vm: vm.Name(), disk: diskID, file: lowest.File, layer: opened.Layers()[0], base: opened.Base(),
		name: string(record.UID + lowest.Transfer),
	}
	if err := c.measure(); err != nil {
		return err
	}
	if _, err := vm.StartMerge(diskID, c.total); err != nil {
		return err
	}
	if err := opened.TakeIdentity(c.layer); err != nil {
		return err
	}
	if err := c.copy(ctx); err != nil {
		return err
	}
	_, err = vm.FinishMerge(diskID, chain.Merged{Bytes: c.total, Duration: time.Since(started)})
	return err
}
