package chain

import (
	"slices"
	"sync"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
)

// Table is the record of every VM. Its methods may be called concurrently.
type Table struct {
	store state.Store
	rows  state.Table[Record]
	log   *event.Log

	mu        sync.Mutex
	observers []*observer
}

type observer struct{ call func(vm string) }

// NewTable keeps records in the store's bucket "replicas". What transitions tell goes to log, in their transaction;
// a nil log keeps nothing of it.
func NewTable(store state.Store, log *event.Log) *Table {
	return &Table{store: store, rows: state.Table[Record]{Bucket: "replicas"}, log: log}
}

// Get is the record of a VM; NOT_FOUND when there is none.
func (t *Table) Get(vm string) (Record, error) {
	var record Record
	err := t.store.View(func(tx state.Tx) error {
		var err error
		record, err = t.get(tx, vm)
		return err
	})
	return record, err
}

func (t *Table) get(tx state.Tx, vm string) (Record, error) {
	record, found, err := t.rows.Get(tx, vm)
	if err == nil && !found {
		err = failure.New(failure.NotFound, failure.ReasonNotFound, "this replica holds no such VM").On(vm, "")
	}
	return record, err
}

// List is every record, by VM name.
func (t *Table) List() ([]Record, error) {
	var records []Record
	err := t.store.View(func(tx state.Tx) error {
		records = nil
		for row := range t.rows.Rows(tx, "") {
			if row.Err != nil {
				return row.Err
			}
			records = append(records, row.Record)
		}
		return nil
	})
	return records, err
}

// Update changes one record by fn and returns it as it is after; it is durable then. When fn or the store fails
// nothing is changed. fn may run more than once and touches nothing but the record.
func (t *Table) Update(vm string, fn func(*Record) error) (Record, error) {
	return t.write(vm, func(tx state.Tx) (Record, error) {
		record, err := t.get(tx, vm)
		if err != nil {
			return record, err
		}
		if err := fn(&record); err != nil {
			return record, err
		}
		return record, t.rows.Put(tx, vm, record)
	})
}

// Create makes a record; ALREADY_EXISTS when the VM has one.
func (t *Table) Create(record Record) (Record, error) {
	return t.write(record.VM, func(tx state.Tx) (Record, error) {
		_, found, err := t.rows.Get(tx, record.VM)
		if err != nil {
			return record, err
		}
		if found {
			return record, failure.New(failure.Exists, failure.ReasonAlreadyExists, "this replica holds the VM already").
				On(record.VM, "")
		}
		return record, t.rows.Put(tx, record.VM, record)
	})
}

// Delete forgets a record whose files are gone or left to the operator.
func (t *Table) Delete(vm string) error {
	_, err := t.write(vm, func(tx state.Tx) (Record, error) { return Record{}, t.rows.Delete(tx, vm) })
	return err
}

func (t *Table) write(vm string, fn func(state.Tx) (Record, error)) (Record, error) {
	var record Record
	var told []event.Event
	err := t.store.Update(func(tx state.Tx) error {
		var err error
		if record, err = fn(tx); err != nil {
			return err
		}
		told, err = t.append(tx, record.told)
		return err
	})
	if err != nil {
		return Record{}, failure.Locate(err, vm, "")
	}
	if len(told) > 0 {
		t.log.Publish(told...)
	}
	record.told = nil
	t.notify(vm)
	return record, nil
}

func (t *Table) append(tx state.Tx, events []event.Event) ([]event.Event, error) {
	if t.log == nil {
		return nil, nil
	}
	var appended []event.Event
	for _, e := range events {
		recorded, err := t.log.Append(tx, e)
		if err != nil {
			return nil, err
		}
		appended = append(appended, recorded)
	}
	return appended, nil
}

// Observe calls fn with a VM's name after each change of its record, until the returned function was called. fn
// must not block.
func (t *Table) Observe(fn func(vm string)) (stop func()) {
	added := &observer{call: fn}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.observers = append(slices.Clone(t.observers), added)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.observers = slices.DeleteFunc(slices.Clone(t.observers), func(o *observer) bool { return o == added })
	}
}

func (t *Table) notify(vm string) {
	t.mu.Lock()
	observers := t.observers
	t.mu.Unlock()
	for _, o := range observers {
		o.call(vm)
	}
}
