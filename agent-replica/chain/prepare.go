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
	// Format is the base's, of a file to be made or of what lies there; a device's is raw, whatever is asked. Differencing
	// chooses that of its differencing disks.
	Format       replication.Format
	Differencing replication.Differencing
}

// base is where the disk will lie in that directory.
func (d PrepareDisk) base(directory string, existing bool) Base {
	base := Base{Device: d.Device, Format: d.Format, Incomplete: !existing}
	if d.Device != "" {
		base.Format = replication.FormatRaw
		return base
	}
	base.File = path.Join(directory, d.ID)
	return base
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
	record := r.record(p)
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
	case record.Failover != nil:
		return record, false, record.CheckFailover()
	case !record.Prepared:
		return record, false, p.check()
	case record.UID != p.UID:
		return record, false, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"this replica holds the VM for another replication, uid %s", record.UID).On(p.VM, "").
			Try("Remove that replication, here or on the primary, then enable it again.")
	}
	return record, true, record.checkPrepared(p)
}

// checkPrepared refuses a repetition that asks for other disks, or for another format.
func (r *Record) checkPrepared(p Prepare) error {
	geometries := make([]Geometry, len(p.Disks))
	for i, d := range p.Disks {
		geometries[i] = d.Geometry
	}
	if err := r.CheckGeometry(geometries); err != nil {
		return err
	}
	for _, asked := range p.Disks {
		held, base := r.Disk(asked.ID), asked.base(p.Directory, p.UseExisting)
		if held.Base.ImageFormat() != base.ImageFormat() || held.Differencing != asked.Differencing {
			return failure.New(failure.Exists, failure.ReasonAlreadyExists,
				"this replica holds the disk as %s, not as %s, or with other differencing disks", held.Base.ImageFormat(),
				base.ImageFormat()).On(p.VM, asked.ID).Try("Remove that replication, here or on the primary, then enable it again.")
		}
	}
	return nil
}

// reserved is what is appended to a disk's id for its layers, of whatever format, and for what else goes with a disk.
var reserved = regexp.MustCompile(`^\.[0-9a-f]{8}\.[0-9a-z]+$`)

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

func (r *Registry) record(p Prepare) Record {
	record := Record{
		VM: p.VM, UID: p.UID, Primary: p.Primary, Authorization: p.Authorization, Directory: p.Directory,
		Term: p.Term, CreateTime: p.Time,
	}
	for _, d := range p.Disks {
		base := d.base(p.Directory, p.UseExisting)
		record.Disks = append(record.Disks, Disk{
			ID: d.ID, SizeBytes: d.SizeBytes, LogicalSectorSize: d.LogicalSectorSize, Base: base,
			Differencing: d.Differencing, Layer: r.storage.LayerKind(base.ImageFormat(), d.Differencing),
		})
	}
	return record
}

func (r *Registry) startPrepare(p Prepare) (Record, error) {
	record, err := r.table.Create(r.record(p))
	if err == nil || failure.Find(err).Reason != failure.ReasonAlreadyExists {
		return record, err
	}
	return r.table.Update(p.VM, func(found *Record) error {
		if found.Prepared || found.Releasing || found.Primary != p.Primary {
			return failure.New(failure.Conflict, failure.ReasonAlreadyExists, "somebody else prepared the VM just now").
				On(p.VM, "")
		}
		*found = r.record(p)
		return nil
	})
}
