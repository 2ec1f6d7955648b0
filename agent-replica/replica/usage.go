package replica

import (
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

// checkBegin answers STORAGE_FULL when there is no room for one more segment of any disk, which is the least that a
// cursor passes: a transfer would begin, fail and begin again for as long as nobody frees any.
func (u *usage) checkBegin(record chain.Record, kind replication.ResyncKind) error {
	if kind == replication.KindVerify {
		return nil
	}
	free, err := u.storage.Free()
	if err != nil {
		return err
	}
	for _, d := range record.Disks {
		need, err := u.progressRoom(d)
		if err != nil {
			return failure.Locate(err, record.VM, d.ID)
		}
		if free < need {
			return failure.New(failure.Exhausted, failure.ReasonStorageFull,
				"the replica's storage is full: %d bytes are needed to go on and %d are free", need, free).
				On(record.VM, d.ID).Try("Free some space in %s; it goes on by itself.", u.storage.Path("."))
		}
	}
	return nil
}

// progressRoom is what one more segment of a disk may take: of a first copy no more than its base lacks.
func (u *usage) progressRoom(d chain.Disk) (int64, error) {
	segment := min(d.SizeBytes, blockdiff.SegmentSize)
	switch {
	case !d.Base.Incomplete:
		return segment + leastRoom, nil
	case d.Base.Device != "":
		return 0, nil
	}
	held, err := u.storage.Allocated(d.Base.File)
	return max(0, min(segment, d.SizeBytes-held)), err
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
