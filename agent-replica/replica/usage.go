package replica

import (
	"fmt"
	"math"

	"vmreplica/agent-replica/authorization"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// leastRoom is what must be free for each disk before it is accepted: its directory, metadata and first data.
const leastRoom = 1 << 20

// usage is what entries hold of the storage.
type usage struct {
	table   *chain.Table
	storage *storage.Storage
}

// used is the bytes that all disks of an entry allocate, layers, balloons and garbage included.
func (u *usage) used(pattern string) (int64, error) {
	records, err := u.table.List()
	if err != nil {
		return 0, err
	}
	var total int64
	for _, record := range records {
		if record.Authorization != pattern {
			continue
		}
		for _, file := range filesOf(record) {
			bytes, err := u.storage.Allocated(file)
			if err != nil {
				return 0, failure.Locate(err, record.VM, "")
			}
			total += bytes
		}
	}
	return total, nil
}

func filesOf(record chain.Record) []string {
	files := append(record.Files(), record.Garbage...)
	for _, d := range record.Disks {
		for _, layer := range d.Layers {
			files = append(files, chain.BalloonFile(layer.File))
		}
	}
	return files
}

// free is what an entry may still allocate: the storage's room, or what its quota leaves.
func (u *usage) free(entry authorization.Entry) (int64, error) {
	free, err := u.storage.Free()
	if err != nil || entry.QuotaBytes == 0 {
		return free, err
	}
	used, err := u.used(entry.Pattern)
	return min(free, max(0, entry.QuotaBytes-used)), err
}

// checkQuota answers QUOTA_EXCEEDED when the VM's entry holds as much as it may.
func (u *usage) checkQuota(book *authorization.Book, record chain.Record) error {
	entry, err := book.Get(record.Authorization)
	if err != nil || entry.QuotaBytes == 0 {
		return err
	}
	used, err := u.used(entry.Pattern)
	if err != nil {
		return err
	}
	return failure.Locate(entry.CheckQuota(used, 1), record.VM, "")
}

// checkBegin answers STORAGE_FULL when there is no room for what the merges of the open transfer's layers lack and one
// more segment of any disk, which is the least that a cursor passes: a transfer would begin, fail and begin again for as
// long as nobody frees any.
func (u *usage) checkBegin(record chain.Record, kind replication.ResyncKind) error {
	if kind == replication.KindVerify {
		return nil
	}
	free, err := u.storage.Free()
	if err != nil {
		return err
	}
	for i := range record.Disks {
		d := &record.Disks[i]
		need, all, err := u.roomFor(d, record.Cursor(d.ID))
		if err != nil {
			return failure.Locate(err, record.VM, d.ID)
		}
		if free >= need {
			continue
		}
		message := fmt.Sprintf("%d bytes are needed to go on and %d are free", need, free)
		if all > need {
			message += fmt.Sprintf("; to its end about %d, if the rest differs as what was compared", all)
		}
		return failure.New(failure.Exhausted, failure.ReasonStorageFull, "the replica's storage is full: %s", message).
			On(record.VM, d.ID).Try("Free some space in %s; it goes on by itself.", u.storage.Path("."))
	}
	return nil
}

// roomFor is what a disk's transfer needs to go on, and about what it needs to its end: of a first copy one segment, and
// no more than its base lacks; of a resync what its merge lacks and, before the end, a segment.
func (u *usage) roomFor(d *chain.Disk, cursor *chain.TransferDisk) (need, all int64, err error) {
	segment := min(d.SizeBytes, blockdiff.SegmentSize)
	target := d.SizeBytes // all of a device is there
	if file := d.TargetFile(len(d.Layers) - 1); file != "" {
		target, err = u.storage.Allocated(file)
	}
	if d.Base.Incomplete || err != nil {
		lacks := max(0, d.SizeBytes-target)
		return min(segment, lacks), lacks, err
	}
	layer, lacking, err := u.lacking(d, target)
	if err != nil || cursor != nil && cursor.Proven {
		return lacking, lacking, err
	}
	need = lacking + segment + leastRoom
	if cursor == nil || cursor.Segment == 0 {
		return need, need, nil
	}
	perSegment := layer / cursor.Segment
	return need, max(need, lacking+2*perSegment*(d.Segments()-cursor.Segment)), nil
}

// lacking is what the receiving layer holds, and how much less than its merge will take is held for that.
func (u *usage) lacking(d *chain.Disk, target int64) (layer, lacking int64, err error) {
	top := len(d.Layers) - 1
	if top < 0 || d.Layers[top].State != chain.Receiving || d.TargetFile(top) == "" {
		return 0, 0, nil
	}
	if layer, err = u.storage.Allocated(d.Layers[top].File); err != nil {
		return 0, 0, err
	}
	held, err := u.storage.Allocated(chain.BalloonFile(d.Layers[top].File))
	return layer, max(0, chain.MergeRoom(d.SizeBytes, layer, target)-held), err
}

// checkRoom refuses new disks when the storage is full or the entry's quota is used up.
func (u *usage) checkRoom(entry authorization.Entry, disks int) error {
	used := int64(0)
	if entry.QuotaBytes > 0 {
		var err error
		if used, err = u.used(entry.Pattern); err != nil {
			return err
		}
	}
	need := int64(min(disks, math.MaxInt32)) * leastRoom
	if err := entry.CheckQuota(used, need); err != nil {
		return err
	}
	free, err := u.storage.Free()
	if err != nil {
		return err
	}
	if free < need {
		return failure.New(failure.Exhausted, failure.ReasonStorageFull, "the replica's storage has %d bytes left", free).
			Try("Free some space in %s.", u.storage.Path("."))
	}
	return nil
}
