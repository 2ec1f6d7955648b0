package render

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Replications writes the VMs, a row each, and below a row why its health is not Normal.
func (p Printer) Replications(list *vmreplicav1.ListReplicationsResponse) error {
	return p.Message(list, func(page *Page) { replicationRows(page, list.GetReplications()) })
}

// Replication writes one VM as a table of one row.
func (p Printer) Replication(r *vmreplicav1.Replication) error {
	return p.Message(r, func(page *Page) { replicationRows(page, []*vmreplicav1.Replication{r}) })
}

// ReplicationLine is one VM on one line, after the time: how a watch shows a change where there is no terminal.
func (p Printer) ReplicationLine(r *vmreplicav1.Replication) error {
	if p.ForMachines() {
		return p.Line(r)
	}
	return p.Message(r, func(page *Page) {
		s := r.GetStatus()
		line := []string{page.now.Format(time.TimeOnly), r.GetName(), Word(s.GetState()), Word(s.GetActivity()),
			Word(s.GetHealth()), progressOf(s, page.now)}
		if text := pending(s); text != none {
			line = append(line, "pending "+text)
		}
		for _, reason := range bad(s) {
			line = append(line, reason.GetMessage())
		}
		page.Line("%s", strings.Join(line, "  "))
	})
}

func replicationRows(page *Page, list []*vmreplicav1.Replication) {
	if len(list) == 0 {
		page.Line("No VM is replicated here.")
		return
	}
	heading := []string{"VM", "STATE", "ACTIVITY", "HEALTH", "LAST-SYNC", "TOOK", "SENT", "PENDING", "HRL", "NEXT-CYCLE", "RESYNC-WINDOW", "PROGRESS"}
	if page.wide {
		heading = append(heading, "REPLICA", "DISKS", "FORMAT", "SIZE", "WRITES", "INTERVAL", "POINTS", "MISSED", "CAUSE", "LINEAGE", "ROOT", "PROVEN")
	}
	rows := newTable(heading...)
	for _, r := range list {
		s := r.GetStatus()
		row := []string{r.GetName(), Word(s.GetState()), Word(s.GetActivity()), Word(s.GetHealth()),
			distance(s.GetLastSynchronizedTime(), page.now, "never"), span(s.GetLastSynchronizedDuration()), lastSent(s), pending(s),
			accumulation(r), distance(s.GetNextCycleTime(), page.now, none), distance(s.GetNextResyncWindowTime(), page.now, none),
			progressOf(s, page.now)}
		if page.wide {
			row = append(row, wideRow(r, page.now)...)
		}
		rows.add(row...)
		for _, reason := range bad(s) {
			rows.note("%s", reasonLine(reason))
		}
	}
	rows.on(page)
}

// wideRow is what wide adds.
func wideRow(r *vmreplicav1.Replication, now time.Time) []string {
	spec, s := r.GetSpec(), r.GetStatus()
	points := fmt.Sprint(spec.GetRecoveryPoints())
	if s.GetMode() == vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA {
		points = fmt.Sprint(len(s.GetRecoveryPoints()))
	}
	return []string{counterpart(r), fmt.Sprint(len(s.GetDisks())), formats(s), Size(totalSize(s)), tracking(s),
		span(spec.GetInterval()), points, fmt.Sprint(s.GetStatistics().GetCyclesMissed()), Word(s.GetResyncCause()),
		short(s.GetLineage()), short(s.GetProvenRoot()), distance(s.GetProvenTime(), now, "never")}
}

// counterpart is the other host: the replica's address, or on a replica the primary's name.
func counterpart(r *vmreplicav1.Replication) string {
	if address := r.GetSpec().GetReplicaAddress(); address != "" {
		return address
	}
	return r.GetStatus().GetPeer()
}

// formats are those of the disks on the asked agent's host, each once.
func formats(s *vmreplicav1.ReplicationStatus) string {
	var words []string
	for _, disk := range s.GetDisks() {
		if word := formatWord(disk.GetFormat()); !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return strings.Join(words, ",")
}

func totalSize(s *vmreplicav1.ReplicationStatus) int64 {
	var total int64
	for _, disk := range s.GetDisks() {
		total += disk.GetSizeBytes()
	}
	return total
}

// bad are the reasons for a health that is not Normal.
func bad(s *vmreplicav1.ReplicationStatus) []*vmreplicav1.HealthReason {
	var reasons []*vmreplicav1.HealthReason
	for _, reason := range s.GetHealthReasons() {
		if reason.GetHealth() != vmreplicav1.Health_HEALTH_NORMAL {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

func reasonLine(reason *vmreplicav1.HealthReason) string {
	line := Word(reason.GetHealth()) + ": "
	if reason.GetDisk() != "" {
		line += "disk " + reason.GetDisk() + ": "
	}
	line += reason.GetMessage()
	if reason.GetRemedy() != "" {
		line = strings.TrimRight(line, ". ") + ". " + reason.GetRemedy()
	}
	return line
}

// progressOf is how far what is under way has come, over all disks.
func progressOf(s *vmreplicav1.ReplicationStatus, now time.Time) string {
	if again := s.GetNextAttemptTime(); again != nil && s.GetActivity() == vmreplicav1.Activity_ACTIVITY_BACKING_OFF {
		return "again " + Distance(again.AsTime(), now)
	}
	sum := sumProgress(s.GetDisks())
	switch {
	case sum == nil && s.GetNextResyncTime() != nil:
		return "resync at " + Moment(s.GetNextResyncTime().AsTime(), now)
	case sum == nil:
		return none
	case s.GetActivity() == vmreplicav1.Activity_ACTIVITY_MERGING && sum.GetMergeTotalBytes() > 0:
		return fmt.Sprintf("%d%% merged", percent(sum.GetMergedBytes(), sum.GetMergeTotalBytes()))
	case s.GetActivity() == vmreplicav1.Activity_ACTIVITY_SENDING, s.GetActivity() == vmreplicav1.Activity_ACTIVITY_CATCHING_UP:
		return strings.Join(append([]string{Size(sum.GetWireSentBytes()) + " sent"}, pace(sum, now)...), " ")
	}
	text := fmt.Sprintf("%d%%", percent(sum.GetComparedBytes(), sum.GetSizeBytes()))
	return strings.Join(append([]string{text}, pace(sum, now)...), " ")
}

// sumProgress adds the disks' progress up; nil when none is under way. The ETA is that of the slowest, and it is
// stalled when none moves.
func sumProgress(disks []*vmreplicav1.DiskStatus) (sum *vmreplicav1.TransferProgress) {
	var stalled *timestamppb.Timestamp
	for _, disk := range disks {
		progress := disk.GetProgress()
		if progress == nil {
			continue
		}
		if sum == nil {
			sum = &vmreplicav1.TransferProgress{}
		}
		sum.SizeBytes += progress.GetSizeBytes()
		sum.ComparedBytes += progress.GetComparedBytes()
		sum.RateBytesPerSecond += progress.GetRateBytesPerSecond()
		sum.WireSentBytes += progress.GetWireSentBytes()
		sum.MergedBytes += progress.GetMergedBytes()
		sum.MergeTotalBytes += progress.GetMergeTotalBytes()
		if eta := progress.GetEta(); eta.AsDuration() > sum.GetEta().AsDuration() {
			sum.Eta = eta
		}
		if since := progress.GetStalledSince(); since.AsTime().After(stalled.AsTime()) {
			stalled = since
		}
	}
	if sum.GetRateBytesPerSecond() == 0 && sum != nil {
		sum.StalledSince = stalled
	}
	return sum
}
