package render

import (
	"fmt"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// RecoveryPoints writes a VM's points, a row each, the newest content last.
func (p Printer) RecoveryPoints(list *vmreplicav1.ListRecoveryPointsResponse) error {
	return p.Message(list, func(page *Page) {
		if len(list.GetRecoveryPoints()) == 0 {
			page.Line("There is no recovery point: no transfer has committed.")
			return
		}
		page.points(list.GetRecoveryPoints())
	})
}

func (p *Page) points(points []*vmreplicav1.RecoveryPoint) {
	rows := newTable("ID", "TIME", "AGE", "LATEST", "SIZE", "READERS")
	for _, point := range points {
		latest, id := none, short(point.GetId())
		if point.GetLatest() {
			latest = "latest"
		}
		if p.wide {
			id = point.GetId()
		}
		at, age := none, none
		if point.GetTime() != nil {
			at, age = Moment(point.GetTime().AsTime(), p.now), Distance(point.GetTime().AsTime(), p.now)
		}
		rows.add(id, at, age, latest, Size(point.GetAllocatedBytes()), fmt.Sprint(point.GetReaders()))
	}
	rows.on(p)
}

// FailoverPlan writes what a failover would do.
func (p Printer) FailoverPlan(f *vmreplicav1.Failover) error {
	return p.Message(f, func(page *Page) {
		page.Line("A failover of the VM %s takes the recovery point %s of %s.", f.GetVm(), short(f.GetRecoveryPoint()),
			moment(f.GetPointTime(), page.now))
		page.failoverNotes(f)
		if f.GetMergeTotalBytes() > 0 {
			page.Line("  %s are merged before the disks can be used.", Size(f.GetMergeTotalBytes()))
		}
		page.Line("  The primary is refused from then on. This cannot be undone.")
	})
}

// Failover writes a failover that is done: where the disks are, and how QEMU takes them.
func (p Printer) Failover(f *vmreplicav1.Failover) error {
	return p.Message(f, func(page *Page) {
		page.Line("The VM %s is failed over to %s, in term %d.", f.GetVm(), moment(f.GetPointTime(), page.now), f.GetTerm())
		rows := newTable("DISK", "FORMAT", "PATH")
		for _, disk := range f.GetDisks() {
			rows.add(disk.GetId(), disk.GetFormat(), disk.GetPath())
		}
		rows.on(page)
		page.failoverNotes(f)
		if len(f.GetQemuArguments()) > 0 {
			page.section("QEMU's arguments")
			page.Continued(f.GetQemuArguments())
		}
	})
}

func (p *Page) failoverNotes(f *vmreplicav1.Failover) {
	for _, note := range f.GetNotes() {
		p.Line("  %s", note)
	}
}
