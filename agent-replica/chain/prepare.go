package chain

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Prepare asks for the record of a VM and the places of its disks.
type Prepare struct {
	VM                     string
	UID                    replication.ID
	Primary, Authorization string
	// Directory is the VM's own, below the storage directory.
	Directory string
	Term      uint64
	Disks     []PrepareDisk
	// UseExisting adopts the files that lie there.
	UseExisting bool
	Time        time.Time
}

// PrepareDisk is one disk; Device stands for a file when it is not empty.
type PrepareDisk struct {
	Geometry
	Device string
}

// CheckPrepare says what stands in the way of Prepare and changes nothing.
func (r *Registry) CheckPrepare(p Prepare) error {
	if _, done, err := r.preparedBefore(p); done || err != nil {
		return err
	}
	before, err := r.begun(p.VM)
	if err != nil {
		return err
	}
	record := p.record()
	for _, d := range record.Disks {
		if err := r.checkPlace(d, p.UseExisting, before); err != nil {
			return failure.Locate(err, p.VM, d.ID)
		}
	}
	return nil
}

// begun is the VM's record whose preparation never ended; an empty one when there is none.
func (r *Registry) begun(vm string) (Record, error) {
	record, err := r.table.Get(vm)
	switch {
	case err != nil && failure.Find(err).Reason == failure.ReasonNotFound:
		return Record{}, nil
	case err != nil:
		return Record{}, err
	case record.Prepared:
		return Record{}, nil
	}
	return record, nil
}

// makes says whether this unfinished record was to make a base of that name: what lies there may be its own.
func (r *Record) makes(base Base) bool {
	return slices.ContainsFunc(r.Disks, func(d Disk) bool { return d.Base.Incomplete && d.Base.File == base.File })
}

// Prepare makes the record and its bases. For the same uid it may be repeated: what is complete stays. A record
// whose preparation never ended is replaced by its primary's next one.
func (r *Registry) Prepare(p Prepare) (Record, error) {
	if record, done, err := r.preparedBefore(p); done || err != nil {
		return record, err
	}
	if err := r.CheckPrepare(p); err != nil {
		return Record{}, err
	}
	vm := r.VM(p.VM)
	vm.turn.Lock()
	defer vm.turn.Unlock()
	before, err := r.begun(p.VM)
	if err != nil {
		return Record{}, err
	}
	record, err := r.startPrepare(p)
	if err != nil {
		return Record{}, err
	}
	stamps := make([]disk.Stamp, len(record.Disks))
	for i, d := range record.Disks {
		if stamps[i], err = r.makePlace(d, p.UseExisting, before.makes(d.Base)); err != nil {
			return Record{}, failure.Locate(err, p.VM, d.ID)
		}
	}
	return r.table.Update(p.VM, func(record *Record) error {
		for i := range record.Disks {
			d := &record.Disks[i]
			d.Base.Stamp = stamps[i]
			if p.UseExisting {
				record.tell(event.BaseAdopted(p.VM, d.ID, r.place(d.Base)))
			}
		}
		record.tell(event.ReplicaPrepared(p.VM, p.Primary, len(record.Disks)))
		record.Prepared = true
		return nil
	})
}

// preparedBefore says whether the VM has been prepared by the same request.
func (r *Registry) preparedBefore(p Prepare) (Record, bool, error) {
	record, err := r.table.Get(p.VM)
	if err != nil && failure.Find(err).Reason == failure.ReasonNotFound {
		return record, false, p.check()
	}
	if err != nil {
		return record, false, err
	}
	switch {
	case record.Releasing:
		return record, false, releasing().On(p.VM, "")
	case record.Primary != p.Primary:
		return record, false, failure.New(failure.Denied, failure.ReasonNotAuthorized,
			"the replica of this VM belongs to another primary").On(p.VM, "")
	case !record.Prepared:
		return record, false, p.check()
	case record.UID != p.UID:
		return record, false, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"this replica holds the VM for another replication, uid %s", record.UID).On(p.VM, "").
			Try("Remove that replication, here or on the primary, then enable it again.")
	}
	geometries := make([]Geometry, len(p.Disks))
	for i, d := range p.Disks {
		geometries[i] = d.Geometry
	}
	return record, true, record.CheckGeometry(geometries)
}

// reserved is what this package appends to a disk's id for files of its own.
var reserved = regexp.MustCompile(`^\.[0-9a-f]{8}\.(qcow2|balloon)$`)

// check refuses names that would collide with each other or with layers.
func (p Prepare) check() error {
	for i, d := range p.Disks {
		if err := replication.CheckName("disk", d.ID); err != nil {
			return failure.Locate(err, p.VM, d.ID)
		}
		for j, other := range p.Disks {
			suffix, found := strings.CutPrefix(d.ID, other.ID)
			if i != j && found && (suffix == "" || reserved.MatchString(suffix)) {
				return failure.New(failure.Invalid, failure.ReasonInvalidName,
					"its name collides with disk %s or its layers", other.ID).On(p.VM, d.ID)
			}
		}
	}
	if len(p.Disks) == 0 {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "no disks are named").On(p.VM, "")
	}
	return nil
}

func (p Prepare) record() Record {
	record := Record{
		VM: p.VM, UID: p.UID, Primary: p.Primary, Authorization: p.Authorization, Directory: p.Directory,
		Term: p.Term, CreateTime: p.Time,
	}
	for _, d := range p.Disks {
		base := Base{Device: d.Device, Incomplete: !p.UseExisting}
		if d.Device == "" {
			base.File = path.Join(p.Directory, d.ID)
		}
		record.Disks = append(record.Disks, Disk{
			ID: d.ID, SizeBytes: d.SizeBytes, LogicalSectorSize: d.LogicalSectorSize, Base: base,
		})
	}
	return record
}

func (r *Registry) startPrepare(p Prepare) (Record, error) {
	record, err := r.table.Create(p.record())
	if err == nil || failure.Find(err).Reason != failure.ReasonAlreadyExists {
		return record, err
	}
	return r.table.Update(p.VM, func(found *Record) error {
		if found.Prepared || found.Releasing || found.Primary != p.Primary {
			return failure.New(failure.Conflict, failure.ReasonAlreadyExists, "somebody else prepared the VM just now").
				On(p.VM, "")
		}
		*found = p.record()
		return nil
	})
}

func (r *Registry) checkPlace(d Disk, existing bool, before Record) error {
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

// checkBase opens and locks what lies there and compares its geometry.
func (r *Registry) checkBase(d Disk) error {
	base, err := r.storage.OpenBase(d.Base, d.LogicalSectorSize)
	if err != nil {
		return err
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
		err = r.storage.CreateBase(d.Base.File, d.SizeBytes, begun)
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
func (r *Registry) PlannedPaths(p Prepare) []string { return r.Paths(p.record()) }
