package chain

import (
	"errors"
	"sync"

	"vmreplica/internal/disk"
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
	}
	v.users++
	return nil
}

// Release ends an acquisition; the last one closes the disks.
func (v *VM) Release() error {
	v.turn.Lock()
	defer v.turn.Unlock()
	v.users--
	if v.users > 0 {
		return nil
	}
	disks := v.disks
	v.setDisks(nil)
	return closeDisks(disks)
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

// openDisk opens a disk. The stamp is looked at once more under the lock that the opening took: what it then is
// becomes the record's, with the doubt.
func (v *VM) openDisk(d Disk) (*Open, error) {
	opened, err := OpenDisk(v.storage, d)
	if err == nil || failure.Find(err).Reason != failure.ReasonReplicaRecord {
		return opened, err
	}
	doubt := failure.Find(err).Message
	known := d.Base.Stamp
	d.Base.Stamp = disk.Stamp{}
	if opened, err = OpenDisk(v.storage, d); err != nil {
		return nil, err
	}
	if err := v.noteDoubt(d.ID, known, doubt); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// noteDoubt remembers that the base's stamp is not known any more, unless the record has moved on meanwhile.
func (v *VM) noteDoubt(diskID string, known disk.Stamp, found string) error {
	record, err := v.Record()
	if err != nil {
		return err
	}
	held := record.Disk(diskID)
	if held == nil || held.Base.Stamp != known {
		return nil
	}
	stamp, err := v.storage.Stamp(held.Base)
	if err != nil {
		return err
	}
	_, err = v.Update(func(r *Record) error { return r.Doubt(diskID, found, stamp) })
	return err
}

// Doubts says, for each disk in the record's order, how its files are not as this agent left them; empty when
// they are. A changed base is remembered until a transfer has proven the disk.
func (v *VM) Doubts() ([]string, error) {
	v.turn.Lock()
	defer v.turn.Unlock()
	record, err := v.Record()
	if err != nil {
		return nil, err
	}
	doubts := make([]string, len(record.Disks))
	for i := range record.Disks {
		if doubts[i], err = v.doubt(&record.Disks[i]); err != nil {
			return nil, failure.Locate(err, v.name, record.Disks[i].ID)
		}
	}
	return doubts, nil
}

func (v *VM) doubt(d *Disk) (string, error) {
	for _, layer := range d.Layers {
		if err := v.storage.Exists(layer.File); err != nil {
			return failure.Find(err).Message, nil
		}
	}
	stamp, err := v.storage.Stamp(d.Base)
	if err != nil {
		return failure.Find(err).Message, nil
	}
	changed := ""
	if d.Base.Stamp != (disk.Stamp{}) {
		changed = d.Base.Stamp.Difference(stamp)
	}
	if changed == "" {
		return d.Doubt, nil
	}
	found := "the base was changed while the agent had it closed: " + changed
	if d.Doubt != "" {
		found = d.Doubt
	}
	return found, v.noteDoubt(d.ID, d.Base.Stamp, found)
}
