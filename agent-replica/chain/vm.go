package chain

import (
	"errors"
	"sync"

	"vmreplica/internal/failure"
)

// Registry gives every VM's open disks to those who work on it.
type Registry struct {
	table   *Table
	storage Storage

	mu  sync.Mutex
	vms map[string]*VM
}

// NewRegistry opens nothing.
func NewRegistry(table *Table, storage Storage) *Registry {
	return &Registry{table: table, storage: storage, vms: map[string]*VM{}}
}

// Table is the records.
func (r *Registry) Table() *Table { return r.table }

// VM is the one of that name; whether it has a record shows when it is used.
func (r *Registry) VM(name string) *VM {
	r.mu.Lock()
	defer r.mu.Unlock()
	vm := r.vms[name]
	if vm == nil {
		vm = &VM{name: name, table: r.table, storage: r.storage}
		r.vms[name] = vm
	}
	return vm
}

// VM is one VM's disks, opened while somebody has acquired them. Its methods may be called concurrently.
type VM struct {
	name    string
	table   *Table
	storage Storage
	holds   holds
	pins    pins

	// turn is held by whoever changes which layers there are, over the files and the record: a commit and the
	// end of a merge look at each other's layers.
	turn sync.Mutex
	// users counts the acquisitions; guarded by turn.
	users int

	// mu guards disks, which turn and mu together change.
	mu    sync.Mutex
	disks map[string]*Open
}

// Name is the VM's name.
func (v *VM) Name() string { return v.name }

// Record is the VM's record as it is now.
func (v *VM) Record() (Record, error) { return v.table.Get(v.name) }

// Update changes what concerns no layer in the record: see Table.Update.
func (v *VM) Update(fn func(*Record) error) (Record, error) { return v.table.Update(v.name, fn) }

// Acquire opens and locks the VM's disks, or shares them when they are open. Each success is answered by one
// Release. A base that another program changed is opened all the same: the doubt is in the record then.
func (v *VM) Acquire() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	if v.users == 0 {
		disks, err := v.openDisks()
		if err != nil {
			return err
		}
		v.setDisks(disks)
	} else if err := v.openMissing(); err != nil {
		return err
	}
	v.users++
	return nil
}

// openMissing opens the receiving layers that ReleaseTransfer has closed. What fails to open is left closed.
func (v *VM) openMissing() error {
	record, err := v.Record()
	if err != nil {
		return err
	}
	for _, d := range record.Disks {
		opened := v.disks[d.ID]
		for _, layer := range d.Layers[min(len(opened.files), len(d.Layers)):] {
			if err := opened.openLayer(v.storage, layer); err != nil {
				return failure.Locate(err, v.name, d.ID)
			}
		}
	}
	return nil
}

// ReleaseTransfer ends the acquisition of a transfer. The receiving layers are closed although others may have the
// disks open: what an open file holds is unknown once its flush has failed, and the next transfer opens it anew.
func (v *VM) ReleaseTransfer() error { return errors.Join(v.closeReceiving(), v.Release()) }

func (v *VM) closeReceiving() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range record.Disks {
		if opened := v.disks[d.ID]; opened != nil {
			errs = append(errs, opened.keep(d.without(Receiving)))
		}
	}
	return errors.Join(errs...)
}

// Release ends an acquisition; the last one settles the bases that were written and closes the disks.
func (v *VM) Release() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.users--
	if v.users > 0 {
		return nil
	}
	err := v.settleBases()
	disks := v.disks
	v.setDisks(nil)
	err = errors.Join(err, closeDisks(disks))
	if record, readErr := v.Record(); readErr == nil && record.FailingOver() {
		v.table.notify(v.name) // its end waits for this
	}
	return err
}

// Disk is one open disk; WRONG_STATE when the VM is not acquired, NOT_FOUND when it has no such disk.
func (v *VM) Disk(id string) (*Open, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.disks == nil {
		return nil, failure.New(failure.Internal, failure.ReasonWrongState, "the disks are not open").On(v.name, id)
	}
	if opened := v.disks[id]; opened != nil {
		return opened, nil
	}
	return nil, failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(v.name, id)
}

func (v *VM) setDisks(disks map[string]*Open) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.disks = disks
}

func closeDisks(disks map[string]*Open) error {
	var errs []error
	for _, opened := range disks {
		errs = append(errs, opened.Close())
	}
	return errors.Join(errs...)
}

func (v *VM) openDisks() (map[string]*Open, error) {
	record, err := v.Record()
	if err == nil && !record.FailingOver() {
		err = record.CheckFailover()
	}
	if err != nil {
		return nil, err
	}
	disks := map[string]*Open{}
	for _, d := range record.Disks {
		opened, err := v.openDisk(d)
		if err != nil {
			return nil, errors.Join(failure.Locate(err, v.name, d.ID), closeDisks(disks))
		}
		disks[d.ID] = opened
	}
	return disks, nil
}
