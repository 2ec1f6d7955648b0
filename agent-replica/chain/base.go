package chain

import (
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// ownWrites is how long after a cursor was saved, or a session taken, a killed agent may have written to an incomplete
// base: a segment over a link of 1.5 Mbit/s takes a minute and a half.
const ownWrites = 2 * time.Minute

// difference says how a base that now has this stamp is not as this agent left it; empty when it is. Of a base that
// the agent writes, or was writing when it was killed, only that is known which its own writes do not change: of an
// incomplete one, whose cursors renew the stamp, that they ended soon after it or after a session was taken.
func (b Base) difference(now disk.Stamp) string {
	switch {
	case b.Stamp == (disk.Stamp{}):
		return ""
	case !b.Writing:
		return b.Stamp.Difference(now)
	case b.Incomplete && now.ModifiedNanoseconds > b.ownUntil():
		return "it was written to after this agent had ended"
	default:
		return b.Stamp.Difference(withoutWrites(b.Stamp, now))
	}
}

// ownUntil is until when this agent may have written to an incomplete base, in nanoseconds of the epoch.
func (b Base) ownUntil() int64 {
	since := b.Stamp.ModifiedNanoseconds
	if !b.SessionTime.IsZero() {
		since = max(since, b.SessionTime.UnixNano())
	}
	return since + ownWrites.Nanoseconds()
}

// withoutWrites is now with what writing changes taken back to known: the size, which goes with the content in most
// formats and is compared as the disk's when the base is opened; a file's times, unless they moved backwards; a device's
// counter, unless it did within the same boot, and all that a host counts anew when it starts.
func withoutWrites(known, now disk.Stamp) disk.Stamp {
	if now.ModifiedNanoseconds >= known.ModifiedNanoseconds {
		now.ModifiedNanoseconds, now.ChangedNanoseconds = known.ModifiedNanoseconds, known.ChangedNanoseconds
	}
	now.SizeBytes = known.SizeBytes
	if now.BootID != known.BootID {
		now.BootID, now.DiskSequence, now.SectorsWritten = known.BootID, known.DiskSequence, known.SectorsWritten
	}
	if now.SectorsWritten > known.SectorsWritten {
		now.SectorsWritten = known.SectorsWritten
	}
	return now
}

func (b *Base) settle(stamp disk.Stamp) { b.Stamp, b.Writing = stamp, false }

// SettleBase says that what was written to a base is durable and that stamp is the base's from now on.
func (r *Record) SettleBase(diskID string, stamp disk.Stamp) error {
	d := r.Disk(diskID)
	if d == nil {
		return failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(r.VM, diskID)
	}
	d.Base.settle(stamp)
	return nil
}

// LoseBase says that a sync of a base has failed. What an incomplete one holds is unknown from here; a merge writes
// all of its layer again.
func (r *Record) LoseBase(diskID, why string) error {
	d := r.Disk(diskID)
	if d == nil || !d.Base.Incomplete {
		return nil
	}
	if d.Base.Lost == "" {
		d.Base.Lost = why
	}
	if r.Transfer != nil && r.Transfer.Failed == "" {
		r.Transfer.Failed = why
	}
	return nil
}

// Doubt remembers that a base, or with its name a layer, is not as this agent left it. It stands until a commit has proven
// the whole disk. The pass of an open transfer begins again under a new session, because what it proved lay on another
// content.
func (r *Record) Doubt(diskID, layer, found string, stamp disk.Stamp) error {
	d := r.Disk(diskID)
	if d == nil {
		return failure.New(failure.NotFound, failure.ReasonNotFound, "the replica has no such disk").On(r.VM, diskID)
	}
	if d.Doubt == "" {
		d.Doubt = found
		r.tell(event.ResyncRequired(r.VM, diskID, replication.CauseReplicaRecordMismatch, found))
	}
	if layer == "" {
		d.Base.Stamp = stamp
	} else {
		d.settleLayer(layer, stamp)
	}
	if t := r.Cursor(diskID); t != nil {
		t.restart()
		t.Session++
	}
	return nil
}

// RestartBase says that an incomplete base is not as this agent left it. What was received stays and what was proven is
// not trusted, so the pass begins again under a new session.
func (r *Record) RestartBase(diskID, found string, stamp disk.Stamp) error {
	d := r.Disk(diskID)
	if d == nil || !d.Base.Incomplete {
		return failure.New(failure.Internal, failure.ReasonWrongState, "the base is not incomplete").On(r.VM, diskID)
	}
	d.Base.settle(stamp)
	t := r.Cursor(diskID)
	if t == nil {
		return nil
	}
	if t.Segment > 0 {
		r.tell(event.PassRestarted(r.VM, diskID, found))
	}
	t.restart()
	t.Session++
	return nil
}
