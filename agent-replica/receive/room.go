package receive

import (
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// holdRoom makes the balloon hold all that the merge of a layer will take of the storage; STORAGE_FULL, with how much
// is lacking, when there is no room for it. Where no space can be told there is none to hold.
func holdRoom(balloon *storage.Balloon, layer, target disk.Disk) error {
	held, known := layer.AllocatedBytes()
	if !known {
		return nil
	}
	need := held
	if grown, known := target.AllocatedBytes(); known {
		need = chain.MergeRoom(layer.Size(), held, grown)
	}
	return balloon.Grow(need)
}

// holdRooms is holdRoom for every layer that the open transfer has filled. A commit cannot be taken back, and its merge
// must not wait for room that is not there.
func (r *Receiver) holdRooms(t *transfer) error {
	record, err := t.vm.Record()
	if err != nil {
		return err
	}
	for _, d := range record.Disks {
		top := len(d.Layers) - 1
		if top < 0 || d.Layers[top].State != chain.Receiving || d.TargetFile(top) == "" {
			continue
		}
		opened, err := t.vm.Disk(d.ID)
		if err == nil {
			err = holdRoom(r.Space.Balloon(chain.BalloonFile(d.Layers[top].File)), opened.Top(), opened.Target(&d, top))
		}
		if err != nil {
			return failure.Locate(err, record.VM, d.ID)
		}
	}
	return nil
}
