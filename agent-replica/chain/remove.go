package chain

import (
	"context"
	"fmt"
	"slices"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
)

// release ends the relationship in the record: an open transfer is discarded; with deleteData the disks' files
// become garbage as well, else they are the operator's from here. WRONG_STATE when data is to stay and layers are not
// merged yet, because the base alone would be neither old nor new. Repeating it changes nothing.
func (r *Record) release(deleteData bool) error {
	if r.Releasing {
		return nil
	}
	if err := r.checkReleased(deleteData); err != nil {
		return err
	}
	if waiting := r.committedLayers(); waiting > 0 && !deleteData {
		return failure.New(failure.Conflict, failure.ReasonWrongState, "%d layers are still to be merged", waiting).
			On(r.VM, "").Try("Wait for the merge, or remove the replica's data as well.")
	}
	r.discardTransfer()
	for i := range r.Disks {
		d := &r.Disks[i]
		r.dropLayers(d, func(Layer) bool { return true })
		if deleteData && d.Base.Device == "" && r.Prepared {
			r.Garbage = append(r.Garbage, d.Base.File)
		}
	}
	left := "Its disks were left where they are."
	if deleteData {
		left = "Its files are deleted."
	}
	r.tell(event.New(event.TypeRemoved, r.VM, "", "The replica of the virtual machine is removed. "+left, nil))
	r.Releasing, r.Disks = true, nil
	return nil
}

// checkReleased refuses to give up a replica half-way through a failover, whose disks are neither what was nor what is to
// be, and to delete disks that are the machine's.
func (r *Record) checkReleased(deleteData bool) error {
	switch {
	case r.FailingOver():
		return failure.New(failure.Conflict, failure.ReasonWrongState, "the replica is being failed over to").On(r.VM, "").
			Try("Wait for its end: vmreplica failover %s", r.VM)
	case r.Failover != nil && deleteData:
		return failure.New(failure.Precondition, failure.ReasonFailedOver,
			"the replica was failed over to; its disks are the machine's and are not deleted").On(r.VM, "").
			Try("Remove the replication without its data; delete the files yourself if the machine does not need them.")
	}
	return nil
}

// Remove ends the relationship here and says, in sentences, what was left or deleted. It waits until nothing else
// is going on or ctx ends. A crash between its steps is finished by Clean.
func (r *Registry) Remove(ctx context.Context, vmName string, deleteData bool) ([]string, error) {
	vm := r.VM(vmName)
	if !deleteData {
		if err := vm.foldPoints(ctx); err != nil {
			return nil, err
		}
	}
	release, err := vm.AwaitHold(ctx, ToRemove)
	if err != nil {
		return nil, err
	}
	defer release()
	vm.turn.Lock()
	defer vm.turn.Unlock()
	if vm.users > 0 {
		return nil, vm.inUse()
	}
	before, err := vm.Record()
	if err != nil {
		return nil, err
	}
	after, err := vm.Update(func(record *Record) error { return record.release(deleteData) })
	if err != nil {
		return nil, err
	}
	return r.notes(before, after), vm.clean(after)
}

// committedLayers counts the committed layers of all disks, those of points included.
func (r *Record) committedLayers() int {
	count := 0
	for _, d := range r.Disks {
		count += len(d.without(Receiving))
	}
	return count
}

// inUse is why disks that somebody has open cannot be given up.
func (v *VM) inUse() error {
	readers := v.Readers()
	if len(readers) == 0 {
		return failure.New(failure.Conflict, failure.ReasonWrongState, "its disks are in use").On(v.name, "")
	}
	return v.read(readers)
}

// foldPoints gives up the recovery points of a VM whose bases are to be left alone with the newest content, and waits
// for their merges until ctx ends. Whether they are done the release looks at.
func (v *VM) foldPoints(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	stop := v.table.Observe(func(vm string) {
		if vm == v.name {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	defer stop()
	record, err := v.Record()
	if err != nil || len(record.Points()) == 0 || record.FailingOver() {
		return err
	}
	if readers := v.Readers(); len(readers) > 0 {
		return v.read(readers)
	}
	for record, err = v.Update(foldPoints); err == nil && record.committedLayers() > 0; record, err = v.Record() {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
	return err
}

func foldPoints(r *Record) error {
	if err := r.CheckFailover(); err != nil {
		return err
	}
	r.RecoveryPoints = 0
	r.dropPoints(func(Point) bool { return true })
	return nil
}

func (r *Registry) notes(before, after Record) []string {
	var notes []string
	for _, d := range before.Disks {
		place := r.place(d.Base)
		switch {
		case d.Base.File != "" && slices.Contains(after.Garbage, d.Base.File):
			notes = append(notes, fmt.Sprintf("Disk %s: %s was deleted.", d.ID, place))
		case d.Base.Incomplete:
			notes = append(notes, fmt.Sprintf("Disk %s: %s was left; it is incomplete.", d.ID, place))
		default:
			notes = append(notes, fmt.Sprintf("Disk %s: %s was left.", d.ID, place))
		}
	}
	return notes
}

// Clean deletes the VM's garbage, what an interrupted sealing of a point has left and, when its relationship has ended, the record. The caller holds the VM so
// that no other cleaning runs. Repeating it changes nothing.
func (v *VM) Clean() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err == nil && record.Unmade() {
		record, err = v.Update(func(r *Record) error {
			if r.Unmade() {
				r.discardCreating()
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	return v.clean(record)
}

func (v *VM) clean(record Record) error {
	if len(record.Garbage) > 0 {
		if err := v.storage.Remove(record.Garbage...); err != nil {
			return failure.Locate(err, v.name, "")
		}
		forget := func(r *Record) error {
			r.ForgetGarbage(record.Garbage)
			return nil
		}
		if _, err := v.Update(forget); err != nil {
			return err
		}
	}
	if !record.Releasing {
		return nil
	}
	if err := v.storage.RemoveDirectory(record.Directory); err != nil {
		return failure.Locate(err, v.name, "")
	}
	return v.table.Delete(v.name)
}
