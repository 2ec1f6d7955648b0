package merge

import (
	"context"
	"errors"
	"slices"
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
		m.setHeld(vmName, false)
		return nil
	}
	if err != nil {
		return err
	}
	if step, held := Next(record, vm); step == (Step{}) {
		m.setHeld(vmName, held)
		return nil
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
		step, held, err := m.step(ctx, vm)
		if err != nil || step == (Step{}) {
			m.setHeld(vmName, held)
			return err
		}
	}
}

// step does the next thing that the VM's record asks for and says what it was, or that only readers are in its way; the
// VM is held.
func (m *Merger) step(ctx context.Context, vm *chain.VM) (step Step, held bool, err error) {
	record, err := vm.Record()
	if gone(err) {
		return Step{}, false, nil
	}
	if err != nil {
		return Step{}, false, err
	}
	step, held = Next(record, vm)
	switch {
	case step == (Step{}):
	case step.Clean:
		err = vm.Clean()
	case step.Settle:
		err = settleFailover(ctx, vm)
	case step.End:
		_, err = vm.EndFailover(time.Now().UTC())
	default:
		err = m.mergeLayer(ctx, vm, step)
	}
	if err != nil {
		err = failure.Locate(storage.Failure(err), vm.Name(), step.Disk)
	}
	return step, held, err
}

func gone(err error) bool {
	return err != nil && failure.Find(err).Reason == failure.ReasonNotFound
}

// Step is what comes next for a VM; the zero Step is nothing.
type Step struct {
	// Clean is to delete garbage and layers that were not made to their end, or the record of an ended relationship.
	Clean bool
	// Settle is to drop what a failover discards, End to let its disks go.
	Settle, End bool
	// Disk is the disk of which a layer, by its file, is to be merged.
	Disk, Layer string
}

// Picker picks the layer that is merged next; a chain.VM, which knows who reads.
type Picker interface {
	NextMerge(record chain.Record) (disk, layer string, held bool)
	// InUse says whether somebody has the disks open.
	InUse() bool
}

// Next is what a record asks for; held says that layers wait only because somebody reads what they would be merged into.
func Next(record chain.Record, picker Picker) (step Step, held bool) {
	if len(record.Garbage) > 0 || record.Releasing || record.Unmade() {
		return Step{Clean: true}, false
	}
	switch {
	case record.FailingOver() && !record.Failover.Settled:
		return Step{Settle: true}, false
	case record.AwaitsEnd():
		inUse := picker.InUse()
		return Step{End: !inUse}, inUse
	}
	diskID, layer, held := picker.NextMerge(record)
	return Step{Disk: diskID, Layer: layer}, held
}

// settleFailover waits until the stream that a failover ends has let the disks go.
func settleFailover(ctx context.Context, vm *chain.VM) error {
	release, err := vm.AwaitHold(ctx, chain.ToTransfer)
	if err != nil {
		return err
	}
	defer release()
	_, err = vm.SettleFailover()
	return err
}

// mergeLayer merges a layer into what lies below it.
func (m *Merger) mergeLayer(ctx context.Context, vm *chain.VM, step Step) (err error) {
	if err := vm.Acquire(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vm.Release()) }()
	record, err := vm.Record()
	if err != nil {
		return err
	}
	opened, err := vm.Disk(step.Disk)
	if err != nil {
		return err
	}
	layers := record.Disk(step.Disk).Layers
	at := slices.IndexFunc(layers, func(l chain.Layer) bool { return l.File == step.Layer })
	if at < 0 {
		return nil // it was discarded meanwhile, and the record asks for something else
	}
	started := time.Now()
	c := &copier{
		merger: m, vm: vm.Name(), disk: step.Disk, file: step.Layer, name: string(record.UID + layers[at].Transfer),
		layer: opened.Layers()[at], target: opened.Below(at), over: at > 0,
	}
	if err := c.measure(); err != nil {
		return err
	}
	if _, err := vm.StartMerge(step.Disk, step.Layer, c.total); err != nil {
		return err
	}
	if err := opened.TakeIdentity(at); err != nil {
		return err
	}
	if err := c.copy(ctx); err != nil {
		return err
	}
	_, err = vm.FinishMerge(step.Disk, chain.Merged{Bytes: c.total, Duration: time.Since(started)})
	return err
}
