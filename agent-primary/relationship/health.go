package relationship

import (
	"fmt"
	"slices"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Codes of health reasons beside those of failures.
const (
	CodeResyncRequired    = "RESYNC_REQUIRED"
	CodeResyncRunning     = "RESYNC_IN_PROGRESS"
	CodeInitialPending    = "INITIAL_REPLICATION_PENDING"
	CodeInitialRunning    = "INITIAL_REPLICATION_IN_PROGRESS"
	CodeSuspended         = "REPLICATION_SUSPENDED"
	CodeResyncFailed      = "RESYNC_FAILED"
	CodeNotPrepared       = "REPLICA_NOT_PREPARED"
	CodeWaiting           = "WAITING_FOR_TRANSFER"
	CodeVerifiedUntracked = "VERIFIED_NOT_TRACKED"
	CodeNotLookedAt       = "NOT_LOOKED_AT"
	CodeTracked           = "TRACKED"
	CodeNotSynchronized   = "NOT_SYNCHRONIZED"
	CodeCyclesMissed      = "CYCLES_MISSED"
	CodeChurn             = "CHURN_EXCEEDS_LINK"
	CodeHRLNearLimit      = "HRL_NEAR_LIMIT"
	CodeFailedOver        = "FAILED_OVER"
	CodeExternalSnapshot  = "EXTERNAL_SNAPSHOT"
	CodeMonitorUnknown    = "MONITOR_NOT_ASKED"
)

// troubleCritical is after how long what was only a nuisance keeps the replica from being brought up to date.
const troubleCritical = time.Hour

// health are the reasons for how the relationship stands at now, worst matters first.
func health(r Record, l Live, now time.Time) []replication.HealthReason {
	var reasons []replication.HealthReason
	add := func(more ...replication.HealthReason) { reasons = append(reasons, more...) }
	add(standing(r)...)
	add(cycles(r, l, now)...)
	if r.State() == replication.Replicating && !l.looked && !r.Tracked() {
		add(replication.HealthReason{
			Code: CodeNotLookedAt, Health: replication.HealthWarning,
			Message: "Not looked at yet since the agent's start: the images may have changed.",
		})
	}
	add(lastFailure(r)...)
	add(suspension(r)...)
	add(trouble(r, l, now)...)
	add(mergeProblem(l)...)
	for _, disk := range r.Disks {
		if missing := l.Missing[disk.ID]; missing != nil {
			add(replication.HealthReason{
				Code: missing.Reason, Health: replication.HealthWarning, Disk: disk.ID,
				Message: fullStop(missing.Message), Remedy: missing.Remedy, Since: l.MissingSince,
			})
		}
	}
	if l.Waiting {
		add(replication.HealthReason{
			Code: CodeWaiting, Health: replication.HealthNormal,
			Message: "Waits until fewer virtual machines transfer.",
			Remedy:  "Allow more: vmreplica agent set --max-transfers N",
		})
	}
	return reasons
}

// standing is what the state itself means.
func standing(r Record) []replication.HealthReason {
	reason := replication.HealthReason{Health: replication.HealthWarning}
	switch state := r.State(); state {
	case replication.Error:
		reason.Code, reason.Health, reason.Since = CodeNotPrepared, replication.HealthCritical, r.CreateTime
		reason.Message = "The replica is not prepared: enabling did not finish."
		reason.Remedy = fmt.Sprintf("Repeat vmreplica enable %s with the same arguments, or vmreplica remove %s", r.Name, r.Name)
	case replication.ReadyForInitialReplication:
		reason.Code, reason.Since = CodeInitialPending, r.CreateTime
		reason.Message, reason.Remedy = "The first copy has not been made.", "vmreplica start-initial "+r.Name
	case replication.InitialReplicationInProgress:
		reason.Code, reason.Since, reason.Message = CodeInitialRunning, r.Resync.StartTime, "The first copy is being made."
	case replication.Resynchronizing:
		reason.Code, reason.Since = CodeResyncRunning, r.Resync.StartTime
		reason.Message = "The replica is being resynchronized; until then it holds its old content."
	case replication.FailedOver:
		reason.Code, reason.Health, reason.Since = CodeFailedOver, replication.HealthCritical, r.Superseded.Time
		reason.Message = "The replica was failed over to, and refuses what is sent: " + fullStop(r.Superseded.Reason)
		reason.Remedy = fmt.Sprintf("See that the machine runs on one host only. To end the replication here: vmreplica remove %s --force", r.Name)
	case replication.Replicating:
		if r.Tracked() {
			return []replication.HealthReason{tracked(r)}
		}
		reason.Code, reason.Health, reason.Since = CodeVerifiedUntracked, replication.HealthNormal, r.ProvenTime
		reason.Message = fmt.Sprintf("Verified at %s, not tracked: the images have not changed since as far as their stamps tell.",
			r.ProvenTime.Format(time.RFC3339))
	default:
		if r.Cause == replication.CauseNone {
			return nil
		}
		return []replication.HealthReason{required(r)}
	}
	return []replication.HealthReason{reason}
}

// required says that a resync is, in Hyper-V's words.
func required(r Record) replication.HealthReason {
	remedy := "vmreplica resync " + r.Name
	if r.NeedsForce {
		remedy += " --force, if nobody else uses the disks there: it prepares and overwrites them"
	}
	return replication.HealthReason{
		Code: CodeResyncRequired, Health: replication.HealthCritical, Disk: r.CauseDisk, Since: r.CauseTime,
		Message: fmt.Sprintf("Resynchronization is required for the virtual machine %s. "+
			"Resume replication to start resynchronization.", r.Name),
		Remedy: fmt.Sprintf("%s: %s. Try: %s", r.Cause, r.Evidence, remedy),
	}
}

// lastFailure stands until the next resync is started.
func lastFailure(r Record) []replication.HealthReason {
	last := r.Resync
	if last == nil || last.State != replication.ResyncFailed {
		return nil
	}
	return []replication.HealthReason{{
		Code: last.Reason, Health: replication.HealthCritical, Since: last.EndTime,
		Message: fullStop(fmt.Sprintf("The last %s failed: %s", kindWord(last.Kind), last.Result)),
		Remedy:  "vmreplica resyncs " + r.Name,
	}}
}

func suspension(r Record) []replication.HealthReason {
	if r.Suspension == nil {
		return nil
	}
	reason := replication.HealthReason{
		Code: CodeSuspended, Health: replication.HealthWarning, Since: r.Suspension.Time,
		Message: "Replication is suspended", Remedy: "vmreplica resume " + r.Name,
	}
	if r.Suspension.Reason != "" {
		reason.Message += ": " + r.Suspension.Reason
	}
	if r.Suspension.Code != "" {
		reason.Code, reason.Health = r.Suspension.Code, replication.HealthCritical
		reason.Remedy = fmt.Sprintf("Shut the virtual machine down or keep other programs from writing to its images, "+
			"then: vmreplica resume %s", r.Name)
	}
	return []replication.HealthReason{reason}
}

// trouble is what the present task waits for.
func trouble(r Record, l Live, now time.Time) []replication.HealthReason {
	if l.Trouble == nil {
		return nil
	}
	reason := replication.HealthReason{
		Code: l.Trouble.Reason, Health: replication.HealthWarning, Disk: l.Trouble.Disk, Since: l.TroubleSince,
		Message: fullStop(l.Trouble.Message), Remedy: l.Trouble.Remedy,
	}
	lasting := now.Sub(l.TroubleSince) > troubleCritical && l.Trouble.Reason != failure.ReasonImageInUse
	if slices.Contains(critical, l.Trouble.Reason) || lasting && r.Active() != nil {
		reason.Health = replication.HealthCritical
	}
	if l.Trouble.Reason == failure.ReasonStaleTerm {
		reason.Message = "Another host owns the virtual machine by now: " + l.Trouble.Message + "."
		reason.Remedy = fmt.Sprintf("Find out where it is to run before it is started anywhere. If not here: vmreplica remove %s --force", r.Name)
	}
	return []replication.HealthReason{reason}
}

// mergeProblem is what keeps the replica from merging what it has committed.
func mergeProblem(l Live) []replication.HealthReason {
	if l.MergeProblem == nil {
		return nil
	}
	found := l.MergeProblem.Found
	reason := replication.HealthReason{
		Code: found.Reason, Health: replication.HealthWarning, Disk: found.Disk, Since: l.MergeProblem.Since,
		Message: "The replica has what was committed and cannot merge it. " + fullStop(found.Message), Remedy: found.Remedy,
	}
	if l.MergeProblem.Final || found.Reason == failure.ReasonBaseMissing {
		reason.Health = replication.HealthCritical
	}
	if l.MergeProblem.Final && reason.Remedy == "" {
		reason.Remedy = "When its cause is mended, restart the replica agent: it merges at its start."
	}
	return []replication.HealthReason{reason}
}

// critical are reasons that nothing but an operator mends, or that mean that this host's disks are not the newest.
var critical = []string{
	failure.ReasonStorageFull, failure.ReasonQuotaExceeded, failure.ReasonWrongRole, failure.ReasonStaleTerm,
}

func kindWord(kind replication.ResyncKind) string {
	switch kind {
	case replication.KindInitial:
		return "initial replication"
	case replication.KindVerify:
		return "verify"
	default:
		return "resync"
	}
}
