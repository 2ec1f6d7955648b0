package api

import (
	"fmt"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pair is one word on both sides.
type pair[D, P comparable] struct {
	domain D
	proto  P
}

func toProto[D, P comparable](words []pair[D, P], value D) (P, bool) {
	for _, word := range words {
		if word.domain == value {
			return word.proto, true
		}
	}
	var none P
	return none, false
}

func toDomain[D, P comparable](words []pair[D, P], value P) (D, bool) {
	for _, word := range words {
		if word.proto == value {
			return word.domain, true
		}
	}
	var none D
	return none, false
}

// enum is toProto where an unknown value is the enum's UNSPECIFIED.
func enum[D, P comparable](words []pair[D, P], value D) P {
	number, _ := toProto(words, value)
	return number
}

// word is toDomain where an unknown number is refused; what names the enum.
func word[D, P comparable](words []pair[D, P], what string, number P) (D, error) {
	value, known := toDomain(words, number)
	if !known {
		return value, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%s %s is not known here", what, fmt.Sprint(number)).
			Try("Give a %s that this version of the agent lists.", what)
	}
	return value, nil
}

var states = []pair[replication.State, vmreplicav1.ReplicationState]{
	{replication.ReadyForInitialReplication, vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION},
	{replication.InitialReplicationInProgress, vmreplicav1.ReplicationState_REPLICATION_STATE_INITIAL_REPLICATION_IN_PROGRESS},
	{replication.Replicating, vmreplicav1.ReplicationState_REPLICATION_STATE_REPLICATING},
	{replication.Suspended, vmreplicav1.ReplicationState_REPLICATION_STATE_SUSPENDED},
	{replication.WaitingForStartResynchronize, vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE},
	{replication.Resynchronizing, vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZING},
	{replication.ResynchronizeSuspended, vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZE_SUSPENDED},
	{replication.Error, vmreplicav1.ReplicationState_REPLICATION_STATE_ERROR},
	{replication.RecoveryInProgress, vmreplicav1.ReplicationState_REPLICATION_STATE_RECOVERY_IN_PROGRESS},
	{replication.FailedOver, vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER},
}

var activities = []pair[replication.Activity, vmreplicav1.Activity]{
	{replication.Idle, vmreplicav1.Activity_ACTIVITY_IDLE},
	{replication.Connecting, vmreplicav1.Activity_ACTIVITY_CONNECTING},
	{replication.Comparing, vmreplicav1.Activity_ACTIVITY_COMPARING},
	{replication.Committing, vmreplicav1.Activity_ACTIVITY_COMMITTING},
	{replication.Merging, vmreplicav1.Activity_ACTIVITY_MERGING},
	{replication.BackingOff, vmreplicav1.Activity_ACTIVITY_BACKING_OFF},
	{replication.Verifying, vmreplicav1.Activity_ACTIVITY_VERIFYING},
	{replication.Sending, vmreplicav1.Activity_ACTIVITY_SENDING},
	{replication.CatchingUp, vmreplicav1.Activity_ACTIVITY_CATCHING_UP},
}

var healths = []pair[replication.Health, vmreplicav1.Health]{
	{replication.HealthNormal, vmreplicav1.Health_HEALTH_NORMAL},
	{replication.HealthWarning, vmreplicav1.Health_HEALTH_WARNING},
	{replication.HealthCritical, vmreplicav1.Health_HEALTH_CRITICAL},
}

// causes has a word for none.
var causes = []pair[replication.Cause, vmreplicav1.ResyncCause]{
	{replication.CauseNone, vmreplicav1.ResyncCause_RESYNC_CAUSE_UNSPECIFIED},
	{replication.CauseImageModified, vmreplicav1.ResyncCause_RESYNC_CAUSE_IMAGE_MODIFIED},
	{replication.CauseReverted, vmreplicav1.ResyncCause_RESYNC_CAUSE_REVERTED},
	{replication.CauseReplicaRecordMismatch, vmreplicav1.ResyncCause_RESYNC_CAUSE_REPLICA_RECORD_MISMATCH},
	{replication.CauseProofFailed, vmreplicav1.ResyncCause_RESYNC_CAUSE_PROOF_FAILED},
	{replication.CauseResyncCancelled, vmreplicav1.ResyncCause_RESYNC_CAUSE_RESYNC_CANCELLED},
	{replication.CauseHRLOverLimit, vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_OVER_LIMIT},
	{replication.CauseHRLWriteFailed, vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_WRITE_FAILED},
	{replication.CauseHRLNotClosedCleanly, vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_NOT_CLOSED_CLEANLY},
	{replication.CauseTrackingLost, vmreplicav1.ResyncCause_RESYNC_CAUSE_TRACKING_LOST},
}

var resyncKinds = []pair[replication.ResyncKind, vmreplicav1.ResyncKind]{
	{replication.KindInitial, vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL},
	{replication.KindResync, vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC},
	{replication.KindVerify, vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY},
}

// transferKinds are the same words between the agents.
var transferKinds = []pair[replication.ResyncKind, vmreplicav1.TransferKind]{
	{replication.KindInitial, vmreplicav1.TransferKind_TRANSFER_KIND_INITIAL},
	{replication.KindResync, vmreplicav1.TransferKind_TRANSFER_KIND_RESYNC},
	{replication.KindVerify, vmreplicav1.TransferKind_TRANSFER_KIND_VERIFY},
	{replication.KindDelta, vmreplicav1.TransferKind_TRANSFER_KIND_DELTA},
}

var resyncStates = []pair[replication.ResyncState, vmreplicav1.ResyncState]{
	{replication.ResyncScheduled, vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED},
	{replication.ResyncComparing, vmreplicav1.ResyncState_RESYNC_STATE_COMPARING},
	{replication.ResyncCommitting, vmreplicav1.ResyncState_RESYNC_STATE_COMMITTING},
	{replication.ResyncCommitted, vmreplicav1.ResyncState_RESYNC_STATE_COMMITTED},
	{replication.ResyncMerging, vmreplicav1.ResyncState_RESYNC_STATE_MERGING},
	{replication.ResyncDone, vmreplicav1.ResyncState_RESYNC_STATE_DONE},
	{replication.ResyncCancelled, vmreplicav1.ResyncState_RESYNC_STATE_CANCELLED},
	{replication.ResyncFailed, vmreplicav1.ResyncState_RESYNC_STATE_FAILED},
	{replication.ResyncCatchingUp, vmreplicav1.ResyncState_RESYNC_STATE_CATCHING_UP},
}

var formats = []pair[replication.Format, vmreplicav1.DiskFormat]{
	{replication.FormatRaw, vmreplicav1.DiskFormat_DISK_FORMAT_RAW},
	{replication.FormatVHD, vmreplicav1.DiskFormat_DISK_FORMAT_VHD},
	{replication.FormatVHDX, vmreplicav1.DiskFormat_DISK_FORMAT_VHDX},
	{replication.FormatQCOW2, vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2},
}

// differencings has a word for the base's own.
var differencings = []pair[replication.Differencing, vmreplicav1.DiskFormat]{
	{replication.DifferencingByBase, vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED},
	{replication.DifferencingQCOW2, vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2},
}

// StateToProto is a relationship's state on the wire.
func StateToProto(s replication.State) vmreplicav1.ReplicationState { return enum(states, s) }

// ActivityToProto is an activity on the wire.
func ActivityToProto(a replication.Activity) vmreplicav1.Activity { return enum(activities, a) }

// HealthToProto is a health on the wire.
func HealthToProto(h replication.Health) vmreplicav1.Health { return enum(healths, h) }

// CauseToProto is a cause on the wire; none is UNSPECIFIED.
func CauseToProto(c replication.Cause) vmreplicav1.ResyncCause { return enum(causes, c) }

// ResyncKindToProto is a kind of resync for an operator.
func ResyncKindToProto(k replication.ResyncKind) vmreplicav1.ResyncKind { return enum(resyncKinds, k) }

// ResyncKindFromProto is a kind of resync that an operator asked for.
func ResyncKindFromProto(k vmreplicav1.ResyncKind) (replication.ResyncKind, error) {
	return word(resyncKinds, "resync kind", k)
}

// TransferKindToProto is a kind of resync between the agents.
func TransferKindToProto(k replication.ResyncKind) vmreplicav1.TransferKind {
	return enum(transferKinds, k)
}

// ResyncStateToProto is a resync's state on the wire.
func ResyncStateToProto(s replication.ResyncState) vmreplicav1.ResyncState {
	return enum(resyncStates, s)
}

// FormatToProto is an image's format on the wire.
func FormatToProto(f replication.Format) vmreplicav1.DiskFormat { return enum(formats, f) }

// FormatFromProto is the format that an operator stated; UNSPECIFIED is refused, because none is ever probed.
func FormatFromProto(f vmreplicav1.DiskFormat) (replication.Format, error) {
	return word(formats, "disk format", f)
}

// BaseFormatFromProto is the format of a base that a primary asks for; UNSPECIFIED, all that primaries of before say,
// is raw.
func BaseFormatFromProto(f vmreplicav1.DiskFormat) (replication.Format, error) {
	if f == vmreplicav1.DiskFormat_DISK_FORMAT_UNSPECIFIED {
		return replication.FormatRaw, nil
	}
	return FormatFromProto(f)
}

// DifferencingToProto is the policy for differencing disks on the wire; the base's own is UNSPECIFIED.
func DifferencingToProto(d replication.Differencing) vmreplicav1.DiskFormat {
	return enum(differencings, d)
}

// DifferencingFromProto is the policy for differencing disks from the wire.
func DifferencingFromProto(f vmreplicav1.DiskFormat) (replication.Differencing, error) {
	return word(differencings, "differencing disk format", f)
}
