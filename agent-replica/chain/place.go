package chain

import (
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

func (r *Registry) checkPlace(d Disk, existing bool, before Record) error {
	if err := r.storage.Supports(d.Base, d.SizeBytes, d.LogicalSectorSize); err != nil {
		return err
	}
	if d.Base.Device != "" {
		if err := r.checkDeviceFree(d); err != nil {
			return err
		}
	}
	if existing || d.Base.Device != "" {
		return r.checkBase(d)
	}
	if before.makes(d.Base) {
		return nil
	}
	return r.storage.Vacant(d.Base.File)
}

// checkDeviceFree refuses a device that is another disk's base, under whatever name.
func (r *Registry) checkDeviceFree(d Disk) error {
	wanted, err := r.storage.Stamp(d.Base)
	if err != nil {
		return err
	}
	records, err := r.table.List()
	if err != nil {
		return err
	}
	for _, record := range records {
		for _, other := range record.Disks {
			if !record.Prepared || other.Base.Device == "" {
				continue
			}
			found, err := r.storage.Stamp(other.Base)
			if err == nil && found.Device == wanted.Device {
				return failure.New(failure.Exists, failure.ReasonBaseExists, "%s holds disk %s of VM %s",
					d.Base.Device, other.ID, record.VM).Try("Map another device.")
			}
		}
	}
	return nil
}

// nothingToAdopt is err with what helps when nothing lies where a base is to be adopted; any other error stays.
func nothingToAdopt(err error) error {
	found := failure.Find(err)
	if found.Reason != failure.ReasonBaseMissing {
		return err
	}
	return found.Try("Put the copy there, or leave --use-existing away.")
}

// checkBase opens and locks what lies there and compares its geometry.
func (r *Registry) checkBase(d Disk) error {
	base, err := r.storage.OpenBase(d.Base, d.LogicalSectorSize)
	if err != nil {
		return nothingToAdopt(err)
	}
	switch {
	case base.Size() != d.SizeBytes:
		err = failure.New(failure.Precondition, failure.ReasonSizeMismatch,
			"the primary's disk has %d bytes, the replica's %s has %d", d.SizeBytes, r.place(d.Base), base.Size()).
			Try("Give both disks the same size.")
	case base.LogicalSectorSize() != d.LogicalSectorSize:
		err = failure.New(failure.Precondition, failure.ReasonSectorMismatch,
			"the primary's disk has sectors of %d bytes, the replica's %s of %d", d.LogicalSectorSize, r.place(d.Base),
			base.LogicalSectorSize())
	}
	if closeErr := base.Close(); err == nil && closeErr != nil {
		err = closeErr
	}
	return err
}

// makePlace makes a base, or goes on with one that was begun, or adopts what lies there, and answers its stamp.
func (r *Registry) makePlace(d Disk, existing, begun bool) (disk.Stamp, error) {
	var err error
	if d.Base.Device == "" && !existing {
		err = r.storage.CreateBase(d.Base, d.SizeBytes, d.LogicalSectorSize, begun)
	} else {
		err = r.checkBase(d)
	}
	if err != nil {
		return disk.Stamp{}, err
	}
	return r.storage.Settle(d.Base)
}

// place is where an operator finds a base.
func (r *Registry) place(b Base) string {
	if b.Device != "" {
		return b.Device
	}
	return r.storage.Path(b.File)
}

// Paths are where an operator finds the bases, in the record's order.
func (r *Registry) Paths(record Record) []string {
	paths := make([]string, len(record.Disks))
	for i, d := range record.Disks {
		paths[i] = r.place(d.Base)
	}
	return paths
}

// PlannedPaths are where Prepare would put the bases.
func (r *Registry) PlannedPaths(p Prepare) []string { return r.Paths(r.record(p)) }
