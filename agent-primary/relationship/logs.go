package relationship

import (
	"fmt"
	"slices"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// DiskLog is what is recorded of a disk's HRL.
type DiskLog struct {
	// Identity is the disk's own, minted once.
	Identity replication.ID
	// Opened is the log's open counter when it was last opened.
	Opened uint64
}

// opening is what was found when a disk was opened to be tracked.
type opening struct {
	// stamp is the image's before anybody wrote to it, opened the log's counter.
	stamp  disk.Stamp
	opened uint64
	loss   hrl.Loss
	// first says that the disk was never opened to be tracked before.
	first bool
}

// Tracked says whether the VM has been attached through the agent: its writes are in its logs from then on.
func (r Record) Tracked() bool {
	return len(r.Disks) > 0 && !slices.ContainsFunc(r.Disks, func(d Disk) bool { return d.Log == nil })
}

// withLogs gives every disk an identity for its log.
func (r Record) withLogs() (Record, []event.Event, error) {
	if err := r.mayChange(); err != nil || r.Tracked() {
		return r, nil, err
	}
	r = r.clone()
	for i := range r.Disks {
		if r.Disks[i].Log == nil {
			r.Disks[i].Log = &DiskLog{Identity: replication.NewID()}
		}
	}
	return r, nil, nil
}

// knownLog is what the log of a disk is judged by.
func (r Record) knownLog(index int) hrl.Disk {
	known := hrl.Disk{
		Identity: r.Disks[index].Log.Identity, Opened: r.Disks[index].Log.Opened,
		Closed: r.Disks[index].ClosedStamp != disk.Stamp{},
	}
	baselines := []replication.ID{r.Lineage}
	if r.Resync != nil {
		baselines = append(baselines, r.Resync.Lineage, r.Resync.Disks[index].Cut.Since)
	}
	for _, baseline := range baselines {
		if baseline != "" {
			known.Baselines = append(known.Baselines, baseline)
		}
	}
	return known
}

// openedWith notes what was found when the disks were opened. A log that is new follows on where the image is known to be
// unchanged: since the proof, or since the cut of a resync under way, which is tracked by baseline from here on.
func (r Record) openedWith(now time.Time, found []opening, baseline replication.ID) (Record, []event.Event, error) {
	r = r.clone()
	var events []event.Event
	for i, o := range found {
		r.Disks[i].Log = &DiskLog{Identity: r.Disks[i].Log.Identity, Opened: o.opened}
		r.Disks[i].ClosedStamp = disk.Stamp{}
		if o.loss.Cause == hrl.None || o.first && r.followsOn(i, o, baseline) {
			continue
		}
		if r.State() == replication.Replicating {
			cause, evidence := causeOf(o.loss)
			if o.first {
				cause, evidence = changeOf(r.Disks[i].Stamp, o.stamp), r.Disks[i].Stamp.Difference(o.stamp)
			}
			r.setCause(now, cause, r.Disks[i].ID, evidence)
			events = append(events, resyncRequired(r))
		}
	}
	if r.TrackedSince.IsZero() {
		r.TrackedSince = now
		events = append(events, event.TrackingStarted(r.Name, len(r.Disks)))
	}
	return r, events, nil
}

// followsOn says whether nothing has changed the image since what its new log is to follow, and notes that.
func (r *Record) followsOn(index int, o opening, baseline replication.ID) bool {
	if active := r.Active(); active != nil && active.running() && active.Kind != replication.KindVerify {
		cut := &r.Resync.Disks[index].Cut
		if cut.Since == "" && cut.Stamp.Difference(o.stamp) == "" {
			cut.Since = baseline
			return true
		}
		return false
	}
	return r.State() == replication.Replicating && r.Disks[index].Stamp.Difference(o.stamp) == ""
}

// beginAt is the baseline that a disk's log begins with now that it is open; empty when it follows one, or none is known.
func (r Record) beginAt(index int, o opening) replication.ID {
	if o.loss.Cause == hrl.None || !o.first {
		return ""
	}
	if active := r.Active(); active != nil && active.running() {
		return r.Resync.Disks[index].Cut.Since
	}
	if r.Lineage != "" && r.CauseDisk != r.Disks[index].ID && r.Disks[index].Stamp.Difference(o.stamp) == "" {
		return r.Lineage
	}
	return ""
}

// closing is a disk that was closed: its log's open counter until then, and its stamp since, which is zero where it was
// not closed in order.
type closing struct {
	opened uint64
	stamp  disk.Stamp
}

// closed notes that the disks are closed, and what waits in their logs. Those that were opened again meanwhile are not.
func (r Record) closed(found []closing, pending int64) (Record, []event.Event, error) {
	r = r.clone()
	for i, c := range found {
		if log := r.Disks[i].Log; log == nil || log.Opened != c.opened {
			return r, nil, nil
		}
	}
	for i, c := range found {
		r.Disks[i].ClosedStamp = c.stamp
	}
	r.Pending = pending
	return r, nil, nil
}

// trackingLost notes that a disk's log is not exact any more; a log that failed may not know of that when it is found
// again. In a resync that has begun the disk's cut is void, so that nothing counts which the log says since. Where another
// disk is the cause already, none is from here on, and every disk is to be compared.
func (r Record) trackingLost(now time.Time, index int, loss hrl.Loss) (Record, []event.Event, error) {
	cause, evidence := causeOf(loss)
	active := r.Active()
	begun := active != nil && active.running() && active.Kind != replication.KindVerify
	if begun {
		r = r.clone()
		r.Resync.Disks[index].Cut.Since = ""
	}
	switch {
	case oneDisk[r.Cause] && r.CauseDisk != "" && r.CauseDisk != r.Disks[index].ID:
		r = r.clone()
		r.Evidence = fmt.Sprintf("disk %s: %s; disk %s: %s", r.CauseDisk, r.Evidence, r.Disks[index].ID, evidence)
		r.CauseDisk = ""
		return r, nil, nil
	case begun || r.Lineage == "":
		return r, nil, nil
	}
	return r.require(now, cause, r.Disks[index].ID, evidence)
}

// causeOf is what a log's loss means for the replica.
func causeOf(loss hrl.Loss) (replication.Cause, string) {
	return lossCauses[loss.Cause], loss.Evidence
}

var lossCauses = map[hrl.Cause]replication.Cause{
	hrl.ImageModified:    replication.CauseImageModified,
	hrl.WriteFailed:      replication.CauseHRLWriteFailed,
	hrl.NotClosedCleanly: replication.CauseHRLNotClosedCleanly,
	hrl.Reverted:         replication.CauseReverted,
	hrl.TrackingLost:     replication.CauseTrackingLost,
}
