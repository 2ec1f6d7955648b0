package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// meanings are the states in a sentence.
var meanings = map[vmreplicav1.ReplicationState]string{
	vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION:   "the replica is prepared, the first copy has not begun",
	vmreplicav1.ReplicationState_REPLICATION_STATE_INITIAL_REPLICATION_IN_PROGRESS: "the first copy is being made; there is nothing to fail over to yet",
	vmreplicav1.ReplicationState_REPLICATION_STATE_REPLICATING:                     "the replica holds what was last proven",
	vmreplicav1.ReplicationState_REPLICATION_STATE_SUSPENDED:                       "nothing is sent until it is resumed; the machine itself runs on",
	vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE: "the replica may lack changes and must be compared",
	vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZING:                 "the replica is being compared; until the commit it keeps its old content",
	vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZE_SUSPENDED:         "the transfer keeps its position until it is resumed",
	vmreplicav1.ReplicationState_REPLICATION_STATE_ERROR:                           "an error that does not go away by itself",
	vmreplicav1.ReplicationState_REPLICATION_STATE_RECOVERY_IN_PROGRESS:            "it was failed over to; what had committed is being merged",
	vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER:                     "it was failed over; the replica's disks are the machine's",
}

// Describe writes everything that is known of a VM; resync, which may be nil, is its last or present one.
func (p Printer) Describe(r *vmreplicav1.Replication, resync *vmreplicav1.Resync) error {
	return p.Message(r, func(page *Page) {
		page.describe(r)
		if resync != nil {
			page.section("Last resync")
			page.resync(resync)
		}
	})
}

func (p *Page) describe(r *vmreplicav1.Replication) {
	s := r.GetStatus()
	p.section("Replication of the VM " + r.GetName())
	p.fact("Seen by", map[vmreplicav1.ReplicationMode]string{
		vmreplicav1.ReplicationMode_REPLICATION_MODE_PRIMARY: "the primary, where the VM runs",
		vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA: "the replica, where the copy lives",
	}[s.GetMode()])
	p.fact("State", join(": ", Word(s.GetState()), meanings[s.GetState()]))
	p.fact("Activity", Word(s.GetActivity()))
	p.fact("Progress", progressOf(s, p.now))
	p.schedule(s)
	p.fact("Health", Word(s.GetHealth()))
	p.fact("Suspended because", s.GetSuspendReason())
	p.cause(s)
	p.failedOver(s)
	p.fact("Replica", r.GetSpec().GetReplicaAddress())
	p.fact("Other agent", s.GetPeer())
	p.tracked(r)
	p.fact("Created", moment(s.GetCreateTime(), p.now))
	p.fact("Labels", labels(r.GetLabels()))
	p.fact("Uid", r.GetUid())
	p.reasons(s.GetHealthReasons())
	p.settings(r.GetSpec())
	p.proof(s)
	if points := s.GetRecoveryPoints(); len(points) > 0 {
		p.section("Recovery points")
		p.points(points)
	}
	p.section("Disks")
	for _, disk := range s.GetDisks() {
		p.disk(disk, asked(r.GetSpec(), disk.GetId()))
	}
	p.statistics(s.GetStatistics())
}

// cause writes why a resync is required, what that was seen from, and what to do.
func (p *Page) cause(s *vmreplicav1.ReplicationStatus) {
	known := causes[s.GetResyncCause()]
	p.fact("Resync required", join(": ", Word(s.GetResyncCause()), known.means))
	if s.GetResyncCause() != vmreplicav1.ResyncCause_RESYNC_CAUSE_UNSPECIFIED {
		p.fact("Seen from", s.GetResyncEvidence())
		p.fact("What to do", known.remedy)
	}
}

func (p *Page) failedOver(s *vmreplicav1.ReplicationStatus) {
	if at := s.GetFailoverTime(); at != nil {
		p.fact("Failed over", join(", to the point ", moment(at, p.now), s.GetFailoverPoint()))
	}
}

func (p *Page) reasons(reasons []*vmreplicav1.HealthReason) {
	if len(reasons) == 0 {
		return
	}
	p.section("Why the health is so")
	for _, reason := range reasons {
		about := Word(reason.GetHealth())
		if reason.GetDisk() != "" {
			about += ", disk " + reason.GetDisk()
		}
		p.Line("  %s (%s): %s", about, reason.GetCode(), reason.GetMessage())
		if reason.GetSince() != nil {
			p.Line("    Since %s", moment(reason.GetSince(), p.now))
		}
		if reason.GetRemedy() != "" {
			p.Line("    %s", reason.GetRemedy())
		}
	}
}

func (p *Page) proof(s *vmreplicav1.ReplicationStatus) {
	p.section("What the replica holds")
	if s.GetLineage() == "" {
		p.Line("  Nothing yet: no transfer has committed.")
		return
	}
	p.fact("Last synchronized", moment(s.GetLastSynchronizedTime(), p.now))
	p.fact("Took", span(s.GetLastSynchronizedDuration()))
	p.lastCycle(s.GetLastCycle())
	p.fact("Proven", moment(s.GetProvenTime(), p.now))
	p.fact("Root", s.GetProvenRoot())
	p.fact("Lineage", s.GetLineage())
	p.fact("Cut", s.GetCut())
	p.fact("Term", fmt.Sprint(s.GetTerm()))
}

// asked is what was asked of the disk of that id; nil on a replica, which does not know.
func asked(spec *vmreplicav1.ReplicationSpec, id string) *vmreplicav1.DiskSpec {
	for _, disk := range spec.GetDisks() {
		if disk.GetId() == id {
			return disk
		}
	}
	return nil
}

// formatWord is a format as an operator states it.
func formatWord(f vmreplicav1.DiskFormat) string { return strings.ToLower(Word(f)) }

// disk writes a disk; asked, which may be nil, is what was asked of it.
func (p *Page) disk(disk *vmreplicav1.DiskStatus, asked *vmreplicav1.DiskSpec) {
	p.Line("  %s", disk.GetId())
	p.Line("    %s, %s, %s in sectors of %d bytes", disk.GetPath(), formatWord(disk.GetFormat()),
		Size(disk.GetSizeBytes()), disk.GetLogicalSectorBytes())
	for _, parent := range asked.GetBacking() {
		p.Line("    Stands on: %s", parent)
	}
	if asked.GetReplicaFormat() != vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED {
		line := "On the replica: " + formatWord(asked.GetReplicaFormat())
		if asked.GetDifferencingFormat() != vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED {
			line += ", under differencing disks in " + formatWord(asked.GetDifferencingFormat())
		}
		p.Line("    %s", line)
	}
	if disk.GetAllocatedBytes() >= 0 {
		p.Line("    Allocated here: %s", Size(disk.GetAllocatedBytes()))
	}
	if disk.GetRoot() != "" {
		p.Line("    Proven root: %s", disk.GetRoot())
	}
	if progress := disk.GetProgress(); progress != nil {
		p.Line("    %s", transferLine(progress, p.now))
	}
	for _, layer := range disk.GetLayers() {
		p.Line("    %-12s%s, %s, %s", Word(layer.GetState()), layer.GetFile(), layer.GetFormat(), Size(layer.GetAllocatedBytes()))
	}
}

// transferLine is a disk's transfer, or its merge, in words.
func transferLine(t *vmreplicav1.TransferProgress, now time.Time) string {
	if t.GetMergeTotalBytes() > 0 {
		return fmt.Sprintf("Merged %d%%: %s of %s", percent(t.GetMergedBytes(), t.GetMergeTotalBytes()),
			Size(t.GetMergedBytes()), Size(t.GetMergeTotalBytes()))
	}
	line := fmt.Sprintf("Compared %d%%: %s of %s, %s differing, %s sent and %s received, durable up to %s",
		percent(t.GetComparedBytes(), t.GetSizeBytes()), Size(t.GetComparedBytes()), Size(t.GetSizeBytes()),
		Size(t.GetDifferingBytes()), Size(t.GetWireSentBytes()), Size(t.GetWireReceivedBytes()),
		Size(t.GetCursorBytes()))
	return strings.Join(append([]string{line}, pace(t, now)...), ", ")
}

func (p *Page) statistics(s *vmreplicav1.ReplicationStatistics) {
	if s == nil {
		return
	}
	p.section("Statistics since " + moment(s.GetStartTime(), p.now))
	p.cycles(s)
	p.fact("Transfers completed", fmt.Sprint(s.GetTransfersCompleted()))
	p.fact("Transfers failed", fmt.Sprint(s.GetTransfersFailed()))
	p.fact("Network failures", fmt.Sprint(s.GetNetworkFailures()))
	p.fact("Sent", Size(s.GetSentBytes()))
	p.fact("Received", Size(s.GetReceivedBytes()))
}

// join is a and b with the separator between them; b alone adds nothing.
func join(separator, a, b string) string {
	if a == none || a == "" || b == "" {
		return a
	}
	return a + separator + b
}

func labels(given map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(given)) {
		pairs = append(pairs, key+"="+given[key])
	}
	return strings.Join(pairs, ", ")
}
