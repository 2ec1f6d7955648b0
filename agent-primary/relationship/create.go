package relationship

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
)

// Create asks for a relationship.
type Create struct {
	Name   string
	Labels map[string]string
	Spec   replication.Spec
	// ValidateOnly checks everything that can be checked and creates nothing.
	ValidateOnly bool
	// Request names the call; the creation itself is the same however often it is asked for.
	Request state.Request
}

// Create makes a relationship and prepares its replica; nothing is copied. One that exists with the same spec and
// labels is answered as it is. A creation that was cut short goes on when it is repeated.
func (m *Manager) Create(ctx context.Context, asked Create) (View, error) {
	if err := replication.CheckName("VM", asked.Name); err != nil {
		return View{}, err
	}
	release, err := m.reserve(asked.Name)
	if err != nil {
		return View{}, err
	}
	defer release()
	view, err := m.create(ctx, asked)
	return view, failure.Locate(err, asked.Name, "")
}

func (m *Manager) create(ctx context.Context, asked Create) (View, error) {
	existing, err := m.owner(asked.Name)
	known := err == nil
	if known {
		if err := sameAs(existing.record(), asked); err != nil {
			return View{}, err
		}
		if existing.record().Prepared {
			return existing.view(), nil
		}
	}
	record, err := m.draft(asked)
	if err != nil {
		return View{}, err
	}
	if known {
		record.UID = existing.record().UID
	}
	replica, err := m.greet(ctx, &record)
	if err != nil {
		return View{}, err
	}
	if asked.ValidateOnly {
		_, err := replica.Prepare(ctx, record.preparation(true))
		return View{Record: record, State: replication.ReadyForInitialReplication}, err
	}
	if !known {
		if existing, err = m.reserveRecord(ctx, record); err != nil {
			return View{}, err
		}
	}
	return m.prepare(ctx, existing, replica, record, asked.Request)
}

// sameAs refuses to enable a VM that is replicated otherwise, naming what differs.
func sameAs(r Record, asked Create) error {
	difference := ""
	switch {
	case r.Spec.ReplicaAddress != asked.Spec.ReplicaAddress:
		difference = fmt.Sprintf("its replica is %s, not %s", r.Spec.ReplicaAddress, asked.Spec.ReplicaAddress)
	case r.Spec.UseExisting != asked.Spec.UseExisting:
		difference = fmt.Sprintf("using existing files is %t, not %t", r.Spec.UseExisting, asked.Spec.UseExisting)
	case !slices.EqualFunc(r.Spec.Disks, asked.Spec.Disks, replication.DiskSpec.SameAs):
		difference = fmt.Sprintf("its disks are %s, not %s", describe(r.Spec.Disks), describe(asked.Spec.Disks))
	case !maps.Equal(r.Labels, asked.Labels):
		difference = fmt.Sprintf("its labels are %v, not %v", r.Labels, asked.Labels)
	default:
		difference = settingsDifference(r.Spec, asked.Spec)
	}
	if difference == "" {
		return nil
	}
	return failure.New(failure.Exists, failure.ReasonAlreadyExists, "it is replicated already, and %s", difference).
		Try("Change it with vmreplica set %s, or end it with vmreplica remove %s", r.Name, r.Name)
}

// settingsDifference says which setting is another one; empty when none is.
func settingsDifference(has, asked replication.Spec) string {
	switch {
	case has.CycleInterval() != asked.CycleInterval():
		return fmt.Sprintf("its interval is %s, not %s", has.CycleInterval(), asked.CycleInterval())
	case has.RecoveryPoints != asked.RecoveryPoints:
		return fmt.Sprintf("it keeps %d recovery points, not %d", has.RecoveryPoints, asked.RecoveryPoints)
	case has.AutoResync != asked.AutoResync:
		return fmt.Sprintf("its automatic resync is %s %s %s, not %s %s %s", has.AutoResync.Mode, has.AutoResync.Window,
			has.AutoResync.TimeZone, asked.AutoResync.Mode, asked.AutoResync.Window, asked.AutoResync.TimeZone)
	case has.HRLLimitPercent != asked.HRLLimitPercent:
		return fmt.Sprintf("its HRL limit is %d percent, not %d", has.HRLLimitPercent, asked.HRLLimitPercent)
	case has.QMPSocket != asked.QMPSocket:
		return fmt.Sprintf("its monitor is %q, not %q", has.QMPSocket, asked.QMPSocket)
	}
	return ""
}

// overlays says of a policy what is not said by the base's format.
var overlays = map[replication.Differencing]string{replication.DifferencingQCOW2: " under qcow2"}

func describe(disks []replication.DiskSpec) string {
	var text []string
	for _, disk := range disks {
		text = append(text, fmt.Sprintf("%s=%s (%s, replica %s%s)", disk.ID, disk.Path, disk.Format, disk.BaseFormat(),
			overlays[disk.Differencing]))
	}
	return fmt.Sprint(text)
}

// draft is the record to be, with what the images say of themselves.
func (m *Manager) draft(asked Create) (Record, error) {
	record := Record{
		Name: asked.Name, UID: replication.NewID(), Revision: 1, Labels: asked.Labels, Spec: asked.Spec,
		CreateTime: now(), Term: 1, Statistics: Statistics{StartTime: now()},
	}
	record.Spec.Disks = nil
	for _, spec := range asked.Spec.Disks {
		if err := m.unclaimed(asked.Name, spec); err != nil {
			return record, err
		}
		spec, disk, err := m.look(spec)
		if err != nil {
			return record, err
		}
		record.Disks = append(record.Disks, disk)
		record.Spec.Disks = append(record.Spec.Disks, spec)
	}
	return record, nil
}

// unclaimed refuses an image that another VM has.
func (m *Manager) unclaimed(vm string, spec replication.DiskSpec) error {
	for _, o := range m.all() {
		other := o.record()
		if other.Name == vm {
			continue
		}
		for _, disk := range other.Spec.Disks {
			if disk.Path == spec.Path {
				return failure.New(failure.Exists, failure.ReasonAlreadyExists,
					"the image %s is disk %s of virtual machine %s already", spec.Path, disk.ID, other.Name).On("", spec.ID)
			}
		}
	}
	return nil
}

// look opens an image briefly, for its size, its sectors, its locks and what it stands on, which is recorded, and makes
// sure that the replica's format can hold it.
func (m *Manager) look(spec replication.DiskSpec) (replication.DiskSpec, Disk, error) {
	backing, err := m.config.Images.Backing(spec)
	if err != nil {
		return spec, Disk{}, failure.Locate(err, "", spec.ID)
	}
	spec.Backing = backing
	source, err := tracking.OpenCold(m.config.Images, spec)
	if err != nil {
		return spec, Disk{}, err
	}
	disk := Disk{
		ID: spec.ID, Path: spec.Path, Format: spec.Format,
		SizeBytes: source.Size(), LogicalSectorSize: source.LogicalSectorSize(),
	}
	err = errors.Join(format.CheckSupport(spec.BaseFormat(), disk.SizeBytes, disk.LogicalSectorSize), source.Close())
	return spec, disk, failure.Locate(err, "", spec.ID)
}

// greet connects to the replica and makes sure that it admits us.
func (m *Manager) greet(ctx context.Context, record *Record) (Replica, error) {
	replica := m.config.Replicas.At(record.Spec.ReplicaAddress, record.identity())
	hello, err := replica.Hello(ctx)
	if err != nil {
		return nil, err
	}
	if hello.Authorization == "" {
		return nil, failure.New(failure.Denied, failure.ReasonNotAuthorized, "the replica %s has no authorization entry for this primary",
			record.Spec.ReplicaAddress).Try("On the replica: vmreplica authorize NAME, with this primary's name.")
	}
	record.ReplicaName = hello.Name
	return replica, nil
}

func (r Record) identity() Identity { return Identity{VM: r.Name, UID: r.UID, Term: r.Term} }

func (r Record) preparation(validateOnly bool) Preparation {
	return Preparation{Disks: r.places(), UseExisting: r.Spec.UseExisting, ValidateOnly: validateOnly}
}

// reserveRecord keeps the record before the replica is asked for anything, so that what the replica does is never
// done for a uid that nobody remembers.
func (m *Manager) reserveRecord(ctx context.Context, record Record) (*owner, error) {
	if err := m.config.Store.Update(func(tx state.Tx) error { return save(tx, record) }); err != nil {
		return nil, err
	}
	if err := m.adopt(ctx, record); err != nil {
		return nil, err
	}
	return m.owner(record.Name)
}

// prepare has the replica make place. If it refuses for good nothing is left here; if it may have done it the
// record stays, so that repeating the creation goes on.
func (m *Manager) prepare(
	ctx context.Context, o *owner, replica Replica, record Record, asked state.Request,
) (View, error) {
	paths, err := replica.Prepare(ctx, record.preparation(false))
	if err != nil {
		if refused(err) {
			err = errors.Join(err, m.forget(ctx, o, change{transition: unchanged}))
		}
		return View{}, err
	}
	record = record.clone() // the owner has the other one
	for i := range record.Disks {
		record.Disks[i].ReplicaPath = paths[i]
	}
	record.Prepared = true
	_, _, err = o.apply(ctx, change{request: asked, transition: func(Record) (Record, []event.Event, error) {
		return record, []event.Event{created(record)}, nil
	}})
	if err != nil {
		return View{}, err
	}
	return o.view(), nil
}

// refused says that the replica decided, and so did nothing.
func refused(err error) bool {
	switch failure.Find(err).Class {
	case failure.Unreachable, failure.Internal, failure.Cancelled, failure.Corrupt:
		return false
	default:
		return true
	}
}
