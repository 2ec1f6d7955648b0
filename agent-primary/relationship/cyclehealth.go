package relationship

import (
	"fmt"
	"time"

	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

// Rules of the health of cycles, Hyper-V's where it has them.
const (
	// missedPercent of the cycles may be missed.
	missedPercent = 20
	// staleCycles and staleLeast are how long the replica may be behind: whichever is longer.
	staleCycles = 3
	staleLeast  = time.Hour
	// nearPercent of the HRL's limit is near it.
	nearPercent = 80
)

// tracked says that the cycles keep the replica in step.
func tracked(r Record) replication.HealthReason {
	return replication.HealthReason{
		Code: CodeTracked, Health: replication.HealthNormal, Since: r.TrackedSince,
		Message: fmt.Sprintf("Tracked: the replica holds the machine as it was at %s, proven.", r.ProvenTime.Format(time.RFC3339)),
	}
}

// cycles are what is to be said of a tracked VM's cycles.
func cycles(r Record, l Live, now time.Time) []replication.HealthReason {
	if !r.Tracked() {
		return nil
	}
	var reasons []replication.HealthReason
	warn := func(code string, since time.Time, remedy, format string, args ...any) {
		reasons = append(reasons, replication.HealthReason{
			Code: code, Health: replication.HealthWarning, Since: since, Message: fmt.Sprintf(format, args...), Remedy: remedy,
		})
	}
	if l.Churn != nil {
		warn(CodeChurn, l.Churn.Since, "Raise the rate (vmreplica agent set --bandwidth-limit), the link or the interval.",
			"The machine writes %s/s and %s/s are sent: the changes accumulate.",
			event.Size(l.Churn.DirtyBytesPerSecond), event.Size(l.Churn.ShippedBytesPerSecond))
	}
	if r.State() != replication.Replicating {
		return reasons
	}
	if behind := r.inStep(l); now.Sub(behind) > max(staleLeast, staleCycles*r.Spec.CycleInterval()) {
		warn(CodeNotSynchronized, behind, "See what the reasons beside this one say; vmreplica events "+r.Name,
			"The replica has not been brought up to date since %s.", behind.Format(time.RFC3339))
	}
	if s := r.Statistics; s.CyclesMissed*100 > (s.CyclesMissed+s.CyclesCompleted)*missedPercent {
		warn(CodeCyclesMissed, s.StartTime, fmt.Sprintf("Choose a longer interval: vmreplica set %s --interval. The count begins anew with: "+
			"vmreplica reset-statistics %s", r.Name, r.Name),
			"%d of %d cycles were missed: they took longer than the interval.", s.CyclesMissed, s.CyclesMissed+s.CyclesCompleted)
	}
	if limit := r.totalBytes() / 100 * int64(r.Spec.HRLLimitPercent); limit > 0 && l.Accumulated*100 > limit*nearPercent {
		warn(CodeHRLNearLimit, time.Time{}, fmt.Sprintf("Bring the replica back, or raise the limit: vmreplica set %s --hrl-limit", r.Name),
			"%s have accumulated; at %s a resync is required.", event.Size(l.Accumulated), event.Size(limit))
	}
	return append(reasons, snapshots(r, l)...)
}

// inStep is when the replica last lacked nothing.
func (r Record) inStep(l Live) time.Time {
	if l.InStep.After(r.LastSynchronized) {
		return l.InStep
	}
	return r.LastSynchronized
}

// snapshots are what the machine's monitor tells of writes that go past the export.
func snapshots(r Record, l Live) []replication.HealthReason {
	if l.MonitorTrouble != nil {
		return []replication.HealthReason{{
			Code: CodeMonitorUnknown, Health: replication.HealthWarning, Remedy: l.MonitorTrouble.Remedy,
			Message: "The machine's monitor could not be asked for external snapshots: " + fullStop(l.MonitorTrouble.Message),
		}}
	}
	var reasons []replication.HealthReason
	for disk, above := range l.Snapshots {
		reasons = append(reasons, replication.HealthReason{
			Code: CodeExternalSnapshot, Health: replication.HealthCritical, Disk: disk,
			Message: fmt.Sprintf("An external snapshot (%s) stands above the disk: what the machine writes there is not replicated.", above),
			Remedy:  "Commit it into the disk (virsh blockcommit --active --pivot, or QMP block-commit): the next cycle sends what it held.",
		})
	}
	return reasons
}
