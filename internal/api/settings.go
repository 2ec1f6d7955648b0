package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

var autoResyncModes = []pair[replication.AutoResyncMode, vmreplicav1.AutoResync_Mode]{
	{replication.AutoResyncOff, vmreplicav1.AutoResync_MODE_OFF},
	{replication.AutoResyncAlways, vmreplicav1.AutoResync_MODE_ALWAYS},
	{replication.AutoResyncWindow, vmreplicav1.AutoResync_MODE_WINDOW},
}

// IntervalFromProto is a replication interval from the wire; unset means the default.
func IntervalFromProto(asked *durationpb.Duration) (time.Duration, error) {
	if asked == nil {
		return replication.DefaultInterval, nil
	}
	return asked.AsDuration(), replication.CheckInterval(asked.AsDuration())
}

// RecoveryPointsFromProto is a number of recovery points from the wire.
func RecoveryPointsFromProto(asked int32) (int, error) {
	return int(asked), replication.CheckRecoveryPoints(int(asked))
}

// HRLLimitFromProto is an HRL limit in percent from the wire; unset means the default, 0 no limit.
func HRLLimitFromProto(asked *int32) (int, error) {
	if asked == nil {
		return replication.DefaultHRLLimitPercent, nil
	}
	return int(*asked), replication.CheckHRLLimit(int(*asked))
}

// AutoResyncToProto is the policy on the wire.
func AutoResyncToProto(a replication.AutoResync) *vmreplicav1.AutoResync {
	return &vmreplicav1.AutoResync{
		Mode: enum(autoResyncModes, a.Mode), Window: a.Window.String(), TimeZone: clean(a.TimeZone, maxTimeZone),
		PauseAtEnd: a.PauseAtEnd,
	}
}

// maxTimeZone bounds the name of a time zone, in bytes.
const maxTimeZone = 128

// AutoResyncFromProto is the policy from the wire; unset means the default window.
func AutoResyncFromProto(asked *vmreplicav1.AutoResync) (replication.AutoResync, error) {
	policy := replication.AutoResync{
		Mode: replication.AutoResyncWindow, Window: replication.DefaultWindow, TimeZone: asked.GetTimeZone(),
		PauseAtEnd: asked.GetPauseAtEnd(),
	}
	var err error
	if mode := asked.GetMode(); mode != vmreplicav1.AutoResync_MODE_UNSPECIFIED {
		if policy.Mode, err = word(autoResyncModes, "automatic resync mode", mode); err != nil {
			return policy, err
		}
	}
	if window := asked.GetWindow(); window != "" {
		if policy.Window, err = replication.ParseWindow(window); err != nil {
			return policy, err
		}
	}
	if len(policy.TimeZone) > maxTimeZone {
		return policy, invalid("a time zone's name has at most %d bytes", maxTimeZone)
	}
	_, err = policy.Location()
	return policy, err
}

// settingsToProto writes the settings of a spec.
func settingsToProto(asked *vmreplicav1.ReplicationSpec, s replication.Spec) {
	limit := int32(s.HRLLimitPercent)
	asked.Interval, asked.RecoveryPoints = durationpb.New(s.CycleInterval()), int32(s.RecoveryPoints)
	asked.AutoResync, asked.HrlLimitPercent = AutoResyncToProto(s.AutoResync), &limit
	asked.QmpSocket = clean(s.QMPSocket, maxPath)
}

// settingsFromProto reads the settings of a spec.
func settingsFromProto(spec *replication.Spec, asked *vmreplicav1.ReplicationSpec) (err error) {
	if spec.Interval, err = IntervalFromProto(asked.GetInterval()); err != nil {
		return err
	}
	if spec.RecoveryPoints, err = RecoveryPointsFromProto(asked.GetRecoveryPoints()); err != nil {
		return err
	}
	if spec.AutoResync, err = AutoResyncFromProto(asked.GetAutoResync()); err != nil {
		return err
	}
	if spec.HRLLimitPercent, err = HRLLimitFromProto(asked.HrlLimitPercent); err != nil {
		return err
	}
	spec.QMPSocket, err = SocketFromProto(asked.GetQmpSocket())
	return err
}

// SocketFromProto is the path of a machine's monitor from the wire: absolute, or empty for none.
func SocketFromProto(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return absolute(path, "Give the socket's absolute path.")
}
