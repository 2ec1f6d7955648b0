package event

import (
	"fmt"
	"strconv"
	"time"

	"vmreplica/internal/replication"
)

// Figures are what a finished resync of one disk took.
type Figures struct {
	// BlocksSent were found to differ, and Bytes of them; on the wire they may be fewer.
	BlocksSent, Bytes int64
	Duration          time.Duration
	// Result is one of the Results.
	Result string
}

// kindWords are a kind's types and its noun.
var kindWords = map[replication.ResyncKind]struct{ started, finished, noun string }{
	replication.KindInitial: {TypeInitialStarted, TypeInitialFinished, "initial replication"},
	replication.KindResync:  {TypeResyncStarted, TypeResyncFinished, "resynchronization"},
	replication.KindVerify:  {TypeVerifyStarted, TypeVerifyFinished, "verification"},
}

// Started and Finished are the types of the events that tell of a resync's start and end, by its kind.
func Started(kind replication.ResyncKind) string  { return kindWords[kind].started }
func Finished(kind replication.ResyncKind) string { return kindWords[kind].finished }

// ResyncStarted is the start of a resync of one disk, from a block up to but not including end.
func ResyncStarted(kind replication.ResyncKind, vm, disk string, start, end int64) Event {
	message := fmt.Sprintf("The %s of disk %s started, from block %d to %d.", kindWords[kind].noun, disk, start, end)
	return New(Started(kind), vm, disk, message, map[string]string{
		"start_block": strconv.FormatInt(start, 10), "end_block": strconv.FormatInt(end, 10),
	})
}

// ResyncFinished is the end of a resync of one disk.
func ResyncFinished(kind replication.ResyncKind, vm, disk string, f Figures) Event {
	message := fmt.Sprintf("The %s of disk %s ended (%s) after %s: %s with %s of differing content.",
		kindWords[kind].noun, disk, f.Result, Span(f.Duration), Count(f.BlocksSent, "block"), Size(f.Bytes))
	return New(Finished(kind), vm, disk, message, map[string]string{
		"blocks_sent": strconv.FormatInt(f.BlocksSent, 10), "bytes": strconv.FormatInt(f.Bytes, 10),
		"duration": f.Duration.String(), "result": f.Result,
	})
}

// VerifyFinished is the end of a verification of one disk: equal, as its roots say, or how many blocks are known to
// differ.
func VerifyFinished(vm, disk string, equal bool, blocksDiffering int64, duration time.Duration) Event {
	result, message := ResultEqual, fmt.Sprintf("Disk %s and its replica are equal, proven in %s.", disk, Span(duration))
	if !equal {
		result = ResultDifferent
		message = fmt.Sprintf("Disk %s and its replica differ in %s.", disk, Differing(blocksDiffering))
	}
	return New(TypeVerifyFinished, vm, disk, message, map[string]string{
		"blocks_differing": strconv.FormatInt(blocksDiffering, 10), "duration": duration.String(), "result": result,
	})
}

// Differing is how many blocks of two disks differ whose roots do; 0 when what was found was forgotten.
func Differing(blocks int64) string {
	if blocks == 0 {
		return "at least 1 block"
	}
	return Count(blocks, "block")
}

// ResyncSuspended is a resync that was stopped and keeps what it has.
func ResyncSuspended(vm, reason string) Event {
	message := "The resync was suspended and keeps its position."
	if reason != "" {
		message = "The resync was suspended and keeps its position: " + reason
	}
	return New(TypeResyncSuspended, vm, "", message, map[string]string{"reason": reason})
}

// ResyncResumed is a resync that goes on where it stopped.
func ResyncResumed(vm string) Event {
	return New(TypeResyncResumed, vm, "", "The resync goes on where it was suspended.", nil)
}

// ResyncCancelled is a resync that was given up before its commit.
func ResyncCancelled(vm string) Event {
	return New(TypeResyncCancelled, vm, "", "The resynchronization was cancelled. Nothing of it counts on the replica.", nil)
}

// PassRestarted is a pass that begins again because the image changed while it was read; what was sent stays.
func PassRestarted(vm, disk, evidence string) Event {
	message := fmt.Sprintf("Disk %s is compared from its beginning again: %s What was received stays.", disk, sentence(evidence))
	return New(TypePassRestarted, vm, disk, message, map[string]string{"evidence": evidence})
}

// CommitInDoubt is a commit whose answer was lost.
func CommitInDoubt(vm, reason string) Event {
	return New(TypeCommitInDoubt, vm, "", "Whether the replica committed is in doubt until it is reached: "+reason,
		map[string]string{"reason": reason})
}

// ResyncRequired is a replica that must not be trusted until it was compared, with what shows it.
func ResyncRequired(vm, disk string, cause replication.Cause, evidence string) Event {
	message := fmt.Sprintf("Resynchronization is required for the virtual machine %s: %s "+
		"Resume replication to start resynchronization.", vm, sentence(evidence))
	return New(TypeResyncRequired, vm, disk, message, map[string]string{"cause": cause.String(), "evidence": evidence})
}

// MergeStarted is a committed differencing disk whose content goes into what is below it.
func MergeStarted(vm, disk string, bytes int64) Event {
	return New(TypeMergeStarted, vm, disk, fmt.Sprintf("The merge of disk %s started.", disk),
		map[string]string{"bytes": strconv.FormatInt(bytes, 10)})
}

// MergeFinished is the end of a merge.
func MergeFinished(vm, disk string, bytes int64, duration time.Duration) Event {
	return New(TypeMergeFinished, vm, disk, fmt.Sprintf("The merge of disk %s ended after %s.", disk, Span(duration)),
		map[string]string{"bytes": strconv.FormatInt(bytes, 10), "duration": duration.String()})
}

// MergeHindered is a committed resync whose merge waits; final when only a new start of the replica agent tries it
// again.
func MergeHindered(vm, disk, reason, message string, final bool) Event {
	what, details := "waits", map[string]string{"reason": reason}
	if final {
		what, details["result"] = "has ended without being done", ResultFailed
	}
	return New(TypeMergeHindered, vm, disk,
		fmt.Sprintf("What was committed is whole, but its merge on the replica %s: %s", what, message), details)
}

// MergeRecovered is a merge that goes on.
func MergeRecovered(vm string) Event {
	return New(TypeMergeRecovered, vm, "", "The merge on the replica goes on.", nil)
}

// ResyncTakenUp is a resync that goes on after the agent was started anew, from the replica's cursor.
func ResyncTakenUp(vm, noun string) Event {
	return New(TypeResyncTakenUp, vm, "",
		fmt.Sprintf("The agent was started anew, and the %s goes on where the replica has it.", noun), nil)
}
