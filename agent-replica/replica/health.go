package replica

import (
	"fmt"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Codes of health reasons beside those of failures; a primary has the same for what it sees itself.
const (
	// ReasonResyncRequired is that of a replica whose files are not as the agent left them.
	ReasonResyncRequired = "RESYNC_REQUIRED"
	ReasonResyncRunning  = "RESYNC_IN_PROGRESS"
	ReasonInitialPending = "INITIAL_REPLICATION_PENDING"
	ReasonInitialRunning = "INITIAL_REPLICATION_IN_PROGRESS"
	// ReasonBeingRead is that of a replica that takes no more changes because readers keep layers from being merged.
	ReasonBeingRead = "RECOVERY_POINT_BEING_READ"
	// ReasonFailingOver is that of a replica whose disks are not the machine's yet.
	ReasonFailingOver = "FAILOVER_IN_PROGRESS"
)

// healthReasons are why the VM is not well.
func (o observation) healthReasons() []replication.HealthReason {
	reasons := o.standing()
	for i, doubt := range o.doubts {
		if doubt == "" || i >= len(o.record.Disks) || o.record.Lineage == "" {
			continue
		}
		reasons = append(reasons, replication.HealthReason{
			Code: ReasonResyncRequired, Health: replication.HealthCritical, Disk: o.record.Disks[i].ID, Message: doubt,
			Remedy: fmt.Sprintf("Resynchronization is required for the virtual machine %s. "+
				"Resume replication to start resynchronization.", o.record.VM),
		})
	}
	if problem := o.merge.Problem; problem != nil {
		reasons = append(reasons, replication.HealthReason{
			Code: problem.Reason, Health: mergeHealth(o.merge), Disk: problem.Disk, Message: problem.Message,
			Remedy: problem.Remedy, Since: o.merge.Since,
		})
	}
	return append(reasons, o.obstructions()...)
}

// standing is what the state itself means.
func (o observation) standing() []replication.HealthReason {
	reason := replication.HealthReason{Health: replication.HealthWarning}
	switch o.state() {
	case replication.ReadyForInitialReplication:
		reason.Code, reason.Since = ReasonInitialPending, o.record.CreateTime
		reason.Message = "The first copy has not been made."
		reason.Remedy = "On the primary: vmreplica start-initial " + o.record.VM
	case replication.InitialReplicationInProgress:
		reason.Code, reason.Since = ReasonInitialRunning, o.record.Transfer.StartTime
		reason.Message = "The first copy is being made; the replica cannot be used yet."
		reason.Remedy = "Wait, or on the primary: vmreplica cancel-resync " + o.record.VM
	case replication.Resynchronizing:
		reason.Code, reason.Since = ReasonResyncRunning, o.record.Transfer.StartTime
		reason.Message = "The replica is being resynchronized; until then it holds its old content."
		reason.Remedy = "Wait; how it goes: vmreplica resyncs " + o.record.VM + " on the primary"
	case replication.RecoveryInProgress:
		reason.Code, reason.Since = ReasonFailingOver, o.record.Failover.StartTime
		reason.Message = "It is being failed over to; its disks cannot be used yet."
		reason.Remedy = "Wait; how it goes: vmreplica failover " + o.record.VM
	case replication.FailedOver:
		reason.Code, reason.Since = failure.ReasonFailedOver, o.record.Failover.StartTime
		reason.Message = "It was failed over to: its disks are the machine's, and nothing protects them."
		reason.Remedy = fmt.Sprintf("Replicate the machine anew from here; vmreplica remove %s --force ends this replication "+
			"and leaves the disks.", o.record.VM)
	default:
		return nil
	}
	return []replication.HealthReason{reason}
}

// obstructions are what a transfer cannot go on for, or none can begin for.
func (o observation) obstructions() []replication.HealthReason {
	var reasons []replication.HealthReason
	if o.full != nil {
		reasons = append(reasons, replication.HealthReason{
			Code: failure.ReasonStorageFull, Health: replication.HealthWarning, Disk: o.full.disk, Message: o.full.message,
			Remedy: "Free some space; it goes on by itself.", Since: o.full.since,
		})
	}
	if o.merge.Held && o.record.LayersToMerge() >= chain.MaxWaiting*len(o.record.Disks) && len(o.readers) > 0 {
		first := o.readers[0]
		reasons = append(reasons, replication.HealthReason{
			Code: ReasonBeingRead, Health: replication.HealthWarning, Since: first.Since,
			Message: fmt.Sprintf("No changes are received while %s reads: layers wait for that to be merged.", first.Who),
			Remedy:  "Wait for the reader, or end it.",
		})
	}
	if o.withdrawn {
		reasons = append(reasons, replication.HealthReason{
			Code: failure.ReasonNotAuthorized, Health: replication.HealthWarning,
			Message: "The authorization of its primary was deleted: nothing is received any more.",
			Remedy: fmt.Sprintf("vmreplica authorize %s, or give the replica up: vmreplica remove %s --force",
				o.record.Authorization, o.record.VM),
		})
	}
	return reasons
}

// mergeHealth is critical when the merge will not go on by itself.
func mergeHealth(s merge.Status) replication.Health {
	if s.Final || s.Problem.Reason == failure.ReasonBaseMissing {
		return replication.HealthCritical
	}
	return replication.HealthWarning
}
