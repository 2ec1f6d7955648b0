package relationship

import (
	"fmt"
	"strings"

	"vmreplica/internal/state"
)

// keptResyncs is how many resyncs of a VM are remembered.
const keptResyncs = 50

// recordTable holds the records by VM name; resyncTable the resyncs by name and number, so that a VM's are
// neighbours in the order of their start.
var (
	recordTable = state.Table[Record]{Bucket: "relationships"}
	resyncTable = state.Table[Resync]{Bucket: "resyncs"}
)

func resyncKey(vm string, number uint64) string { return fmt.Sprintf("%s/%020d", vm, number) }

// save keeps a record and its resync.
func save(tx state.Tx, r Record) error {
	if err := recordTable.Put(tx, r.Name, r); err != nil {
		return err
	}
	if r.Resync == nil {
		return nil
	}
	if r.Resync.Number > keptResyncs {
		if err := resyncTable.Delete(tx, resyncKey(r.Name, r.Resync.Number-keptResyncs)); err != nil {
			return err
		}
	}
	return resyncTable.Put(tx, resyncKey(r.Name, r.Resync.Number), *r.Resync)
}

// erase forgets a VM.
func erase(tx state.Tx, vm string) error {
	history, err := history(tx, vm)
	if err != nil {
		return err
	}
	for _, s := range history {
		if err := resyncTable.Delete(tx, resyncKey(vm, s.Number)); err != nil {
			return err
		}
	}
	return recordTable.Delete(tx, vm)
}

// history are a VM's resyncs, oldest first.
func history(tx state.Tx, vm string) ([]Resync, error) {
	var found []Resync
	for row := range resyncTable.Rows(tx, vm+"/") {
		if !strings.HasPrefix(row.Key, vm+"/") {
			break
		}
		if row.Err != nil {
			return nil, row.Err
		}
		found = append(found, row.Record)
	}
	return found, nil
}

// records are all of them, in the order of their names.
func records(tx state.Tx) ([]Record, error) {
	var found []Record
	for row := range recordTable.Rows(tx, "") {
		if row.Err != nil {
			return nil, row.Err
		}
		found = append(found, row.Record)
	}
	return found, nil
}
