package relationship

import (
	"fmt"
	"strconv"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Fact is something that happened to a VM, before it has a number and a time.
type Fact struct {
	// Type is a stable word.
	Type     string
	VM, Disk string
	// Message is a sentence, Details its figures.
	Message string
	Details map[string]string
}

// The types of facts.
const (
	FactCreated           = "replication.created"
	FactRemoved           = "replication.removed"
	FactSettingsChanged   = "replication.settings_changed"
	FactSuspended         = "replication.suspended"
	FactResumed           = "replication.resumed"
	FactResyncRequired    = "resync.required"
	FactResyncScheduled   = "resync.scheduled"
	FactResyncStarted     = "resync.started"
	FactResyncInterrupted = "resync.interrupted"
	FactResyncRecovered   = "resync.recovered"
	FactPassRestarted     = "resync.restarted"
	FactResyncCommitted   = "resync.committed"
	FactResyncFinished    = "resync.finished"
)

func created(r Record) Fact {
	return Fact{Type: FactCreated, VM: r.Name, Message: fmt.Sprintf("Replication to %s was enabled for %d disks.",
		r.Spec.ReplicaAddress, len(r.Disks))}
}

func removed(r Record) Fact {
	return Fact{Type: FactRemoved, VM: r.Name, Message: fmt.Sprintf("Replication to %s was removed.", r.Spec.ReplicaAddress)}
}

func settingsChanged(r Record) Fact {
	return Fact{Type: FactSettingsChanged, VM: r.Name, Message: "Settings were changed; the replica is " + r.Spec.ReplicaAddress + "."}
}

func suspended(r Record) Fact {
	f := Fact{Type: FactSuspended, VM: r.Name, Message: "Replication was suspended.", Details: map[string]string{}}
	if r.Suspension.Reason != "" {
		f.Message = "Replication was suspended: " + r.Suspension.Reason
	}
	if r.Suspension.Code != "" {
		f.Details["reason"] = r.Suspension.Code
	}
	return f
}

func resumed(r Record) Fact {
	return Fact{Type: FactResumed, VM: r.Name, Message: "Replication was resumed."}
}

func resyncRequired(r Record) Fact {
	return Fact{Type: FactResyncRequired, VM: r.Name, Disk: r.CauseDisk,
		Message: fmt.Sprintf("Resynchronization is required for the virtual machine %s: %s.", r.Name, r.Evidence),
		Details: map[string]string{"cause": r.Cause.String()},
	}
}

func resyncFact(r Record, typ, format string, args ...any) Fact {
	return Fact{Type: typ, VM: r.Name, Message: fmt.Sprintf(format, args...), Details: map[string]string{
		"resync": string(r.Resync.ID), "kind": r.Resync.Kind.String(),
	}}
}

func resyncScheduled(r Record) Fact {
	return resyncFact(r, FactResyncScheduled, "The %s will start at %s.", kindWord(r.Resync.Kind), at(r.Resync.StartTime))
}

// resyncStarted is of one disk, with the first block and the one after the last.
func resyncStarted(r Record, index int) Fact {
	disk := r.Resync.Disks[index]
	blocks := (disk.SizeBytes + blockdiff.BlockSize - 1) / blockdiff.BlockSize
	f := resyncFact(r, FactResyncStarted, "The %s of disk %s started.", kindWord(r.Resync.Kind), disk.ID)
	f.Disk = disk.ID
	f.Details["start_block"], f.Details["end_block"] = "0", strconv.FormatInt(blocks, 10)
	return f
}

func resyncInterrupted(r Record, found *failure.Error) Fact {
	f := resyncFact(r, FactResyncInterrupted, "The %s waits and tries again: %s", kindWord(r.Resync.Kind), sentence(found))
	f.Disk, f.Details["reason"] = found.Disk, found.Reason
	return f
}

func resyncRecovered(r Record, attempts int) Fact {
	f := resyncFact(r, FactResyncRecovered, "The %s goes on after %d failed attempts.", kindWord(r.Resync.Kind), attempts)
	f.Details["attempts"] = strconv.Itoa(attempts)
	return f
}

func passRestarted(r Record, evidence string) Fact {
	f := resyncFact(r, FactPassRestarted, "The pass begins again, and what was received stays: %s.", evidence)
	f.Details["restarts"] = strconv.FormatUint(uint64(r.Resync.Restarts), 10)
	return f
}

func resyncCommitted(r Record) Fact {
	f := resyncFact(r, FactResyncCommitted, "The replica holds the virtual machine as it was at %s.", at(r.Resync.StartTime))
	f.Details["lineage"], f.Details["cut"], f.Details["root"] = string(r.Lineage), string(r.Cut), r.ProvenRoot
	return f
}

// resyncFinished is of one disk.
func resyncFinished(r Record, index int) Fact {
	disk := r.Resync.Disks[index]
	f := resyncFact(r, FactResyncFinished, "The %s of disk %s ended: %s.", kindWord(r.Resync.Kind), disk.ID, r.Resync.Result)
	f.Disk = disk.ID
	f.Details["blocks_sent"] = strconv.FormatInt(disk.Figures.BlocksDiffering, 10)
	f.Details["bytes"] = strconv.FormatInt(disk.Figures.BytesDiffering, 10)
	f.Details["duration"] = r.Resync.EndTime.Sub(r.Resync.StartTime).String()
	f.Details["result"] = resultWord(r.Resync)
	return f
}

// resultWord is how a resync ended, for machines.
func resultWord(s *Resync) string {
	switch s.State {
	case replication.ResyncDone:
		return "completed"
	case replication.ResyncCancelled:
		return "cancelled"
	default:
		return "failed"
	}
}

func at(t time.Time) string { return t.Format(time.RFC3339) }
