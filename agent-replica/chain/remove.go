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
	if waiting := r.LayersToMerge(); waiting > 0 && !deleteData {
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

// Remove ends the relationship here and says, in sentences, what was left or deleted. It waits until nothing else
// is going on or ctx ends. A crash between its steps is finished by Clean.
func (r *Registry) Remove(ctx context.Context, vmName string, deleteData bool) ([]string, error) {
	vm := r.VM(vmName)
	release, err := vm.AwaitHold(ctx, ToRemove)
	if err != nil {
		return nil, err
	}
	defer release()
	vm.turn.Lock()
	defer vm.turn.Unlock()
	if vm.users > 0 {
		return nil, failure.New(failure.Conflict, failure.ReasonWrongState, "its disks are in use").On(vmName, "")
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

// Clean deletes the VM's garbage and, when its relationship has ended, the record. The caller holds the VM so
// that no other cleaning runs. Repeating it changes nothing.
func (v *VM) Clean() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
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
