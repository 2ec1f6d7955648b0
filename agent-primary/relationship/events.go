package relationship

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func created(r Record) event.Event {
	disks := int64(len(r.Disks))
	return event.New(event.TypeCreated, r.Name, "",
		fmt.Sprintf("Replication to %s was enabled for %s.", r.Spec.ReplicaAddress, event.Count(disks, "disk")),
		map[string]string{"replica": r.Spec.ReplicaAddress, "disks": strconv.FormatInt(disks, 10)})
}

func removed(r Record) event.Event { return event.ReplicationRemoved(r.Name, r.Spec.ReplicaAddress) }

func settingsChanged(r Record) event.Event {
	return event.New(event.TypeSettingsChanged, r.Name, "", "Settings were changed.",
		map[string]string{"replica": r.Spec.ReplicaAddress})
}

// suspended tells of the suspension, and of the resync that rests with it.
func suspended(r Record) []event.Event {
	told := event.ReplicationSuspended(r.Name, r.Suspension.Reason)
	if r.Suspension.Code != "" {
		told = event.SuspendedByError(r.Name, "", r.Suspension.Code, r.Suspension.Reason+".")
	}
	if active := r.Active(); active == nil || !active.running() {
		return []event.Event{told}
	}
	return []event.Event{told, naming(event.ResyncSuspended(r.Name, r.Suspension.Reason), r)}
}

// resumed tells that replication goes on, and with it a resync that rested.
func resumed(r Record) []event.Event {
	told := event.ReplicationResumed(r.Name)
	if active := r.Active(); active == nil || !active.running() {
		return []event.Event{told}
	}
	return []event.Event{told, naming(event.ResyncResumed(r.Name), r)}
}

func resyncRequired(r Record) event.Event {
	return event.ResyncRequired(r.Name, r.CauseDisk, r.Cause, r.Evidence)
}

// of is an event about the present resync, which it names.
func of(r Record, typ, disk, message string, details map[string]string) event.Event {
	if details == nil {
		details = map[string]string{}
	}
	details["resync"], details["kind"] = string(r.Resync.ID), r.Resync.Kind.String()
	return event.New(typ, r.Name, disk, message, details)
}

func resyncScheduled(r Record) event.Event {
	start := r.Resync.StartTime.Format(time.RFC3339)
	return of(r, event.TypeResyncScheduled, "", fmt.Sprintf("The %s will start at %s.", kindWord(r.Resync.Kind), start),
		map[string]string{"start_time": start})
}

// resyncStarted is of one disk, from its first block.
func resyncStarted(r Record, index int) event.Event {
	disk := r.Resync.Disks[index]
	blocks := (disk.SizeBytes + blockdiff.BlockSize - 1) / blockdiff.BlockSize
	return naming(event.ResyncStarted(r.Resync.Kind, r.Name, disk.ID, 0, blocks), r)
}

// naming adds the resync's id to an event about it.
func naming(e event.Event, r Record) event.Event {
	if e.Details == nil {
		e.Details = map[string]string{}
	}
	e.Details["resync"] = string(r.Resync.ID)
	return e
}

func resyncInterrupted(r Record, found *failure.Error, wait time.Duration) event.Event {
	if found.Reason == failure.ReasonImageInUse {
		return naming(event.ImageInUse(r.Name, found.Disk, fullStop(sentence(found))), r)
	}
	return naming(event.WillRetry(r.Name, found.Disk, found.Reason, fullStop(sentence(found)), wholeSeconds(wait)), r)
}

// wholeSeconds rounds a wait up: a short one is not none.
func wholeSeconds(wait time.Duration) time.Duration {
	return (wait + time.Second - 1).Truncate(time.Second)
}

func resyncRecovered(r Record, attempts int) event.Event {
	return of(r, event.TypeResyncRecovered, "",
		fmt.Sprintf("The %s goes on after %s.", kindWord(r.Resync.Kind), event.Count(int64(attempts), "failed attempt")),
		map[string]string{"attempts": strconv.Itoa(attempts)})
}

func passRestarted(r Record, disk, evidence string) event.Event {
	return naming(event.PassRestarted(r.Name, disk, evidence), r)
}

func resyncCommitted(r Record) event.Event {
	return of(r, event.TypeResyncCommitted, "",
		fmt.Sprintf("The replica holds the virtual machine as it was at %s.", r.ProvenTime.Format(time.RFC3339)),
		map[string]string{"lineage": string(r.Lineage), "cut": string(r.Cut), "root": r.ProvenRoot})
}

// resyncFinished is of one disk.
func resyncFinished(r Record, index int) event.Event {
	disk := r.Resync.Disks[index]
	took := r.Resync.EndTime.Sub(r.Resync.StartTime).Round(100 * time.Millisecond)
	if r.Resync.Kind == replication.KindVerify && !disk.Root.IsZero() {
		equal := disk.Root == disk.ReplicaRoot
		return naming(event.VerifyFinished(r.Name, disk.ID, equal, disk.Figures.BlocksDiffering, took), r)
	}
	return naming(event.ResyncFinished(r.Resync.Kind, r.Name, disk.ID, event.Figures{
		BlocksSent: disk.Figures.BlocksDiffering, Bytes: disk.Figures.BytesDiffering, Duration: took,
		Result: resultWord(r.Resync),
	}), r)
}

// resyncCancelled is of the VM.
func resyncCancelled(r Record) event.Event {
	return naming(event.ResyncCancelled(r.Name), r)
}

func resyncFailed(r Record, found *failure.Error) event.Event {
	return naming(event.OperationFailed(r.Name, found.Disk, kindWord(r.Resync.Kind), found.Reason, fullStop(sentence(found))), r)
}

// resultWord is how a resync ended, for machines.
func resultWord(s *Resync) string {
	switch s.State {
	case replication.ResyncDone:
		return event.ResultCompleted
	case replication.ResyncCancelled:
		return event.ResultCancelled
	default:
		return event.ResultFailed
	}
}

// fullStop makes a sentence of a failure's message.
func fullStop(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(text[size:], ".") + "."
}
