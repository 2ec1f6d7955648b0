package command

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// The flags of a replication's settings. Those of the automatic resync are one setting on the wire.
const (
	flagInterval   = "interval"
	flagPoints     = "recovery-points"
	flagAutoResync = "auto-resync"
	flagWindow     = "auto-resync-window"
	flagTimeZone   = "auto-resync-time-zone"
	flagPauseAtEnd = "auto-resync-pause-at-end"
	flagHRLLimit   = "hrl-limit"
	flagQMPSocket  = "qmp-socket"
)

// localZone stands for the zone of the agent's host.
const localZone = "local"

// settingNames are all of them.
var settingNames = []string{
	flagInterval, flagPoints, flagAutoResync, flagWindow, flagTimeZone, flagPauseAtEnd, flagHRLLimit, flagQMPSocket,
}

// settingFlags are the settings that enable and set share. Only those that were given are asked for.
type settingFlags struct {
	command                      *cobra.Command
	interval, hrlLimit           string
	autoResync, window, timeZone string
	qmpSocket                    string
	points                       int
	pauseAtEnd                   bool
}

func (f *settingFlags) add(command *cobra.Command) {
	f.command = command
	set := command.Flags()
	set.StringVar(&f.interval, flagInterval, "", "how often the changes of a running machine are sent, `TIME` from 5s to 24h (at first 5m)")
	set.IntVar(&f.points, flagPoints, 0, "how many hourly recovery points the replica keeps, `N` from 0 to 24 (at first 0)")
	set.StringVar(&f.autoResync, flagAutoResync, "", "`WHEN` a required resync starts by itself: off, always or window (at first window)")
	set.StringVar(&f.window, flagWindow, "", "the window of every day, `HH:MM-HH:MM`, over midnight where the end is not later (at first 18:30-06:00)")
	set.StringVar(&f.timeZone, flagTimeZone, "", "the window's time `ZONE`, as in Europe/Berlin; local for the agent's (at first local)")
	set.BoolVar(&f.pauseAtEnd, flagPauseAtEnd, false, "let a running resync rest while the window is closed; without it, it finishes")
	set.StringVar(&f.hrlLimit, flagHRLLimit, "", "a resync is required when more than `PERCENT` of the VM's total disk size has accumulated; none for no limit (at first 50)")
	set.StringVar(&f.qmpSocket, flagQMPSocket, "", "the machine's QMP socket, a `PATH` of the primary's host, so that external snapshots are noticed; none for none")
	complete(command, flagAutoResync, autoResyncWords...)
}

// given says whether any of the settings was given.
func (f *settingFlags) given(names ...string) bool {
	for _, name := range names {
		if f.command.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// onto writes what was given to a spec and answers the paths of the mask that name it. present is the automatic resync
// that is in force, nil for a new replication.
func (f *settingFlags) onto(spec *vmreplicav1.ReplicationSpec, present *vmreplicav1.AutoResync) (paths []string, err error) {
	for _, setting := range []struct {
		path  string
		flags []string
		read  func() error
	}{
		{"spec.interval", []string{flagInterval}, func() error { return f.readInterval(spec) }},
		{"spec.recovery_points", []string{flagPoints}, func() error { return f.readPoints(spec) }},
		{"spec.auto_resync", []string{flagAutoResync, flagWindow, flagTimeZone, flagPauseAtEnd}, func() error { return f.readAutoResync(spec, present) }},
		{"spec.hrl_limit_percent", []string{flagHRLLimit}, func() error { return f.readHRLLimit(spec) }},
		{"spec.qmp_socket", []string{flagQMPSocket}, func() error { return f.readSocket(spec) }},
	} {
		if !f.given(setting.flags...) {
			continue
		}
		if err := setting.read(); err != nil {
			return nil, err
		}
		paths = append(paths, setting.path)
	}
	return paths, nil
}

func (f *settingFlags) readInterval(spec *vmreplicav1.ReplicationSpec) error {
	interval, err := time.ParseDuration(f.interval)
	if err != nil {
		return misused("%q is no interval", f.interval).Try("Give a number with a unit, as in 30s, 5m or 15m.")
	}
	spec.Interval = durationpb.New(interval)
	return replication.CheckInterval(interval)
}

func (f *settingFlags) readPoints(spec *vmreplicav1.ReplicationSpec) error {
	if err := replication.CheckRecoveryPoints(f.points); err != nil {
		return misused("%w", err).Try("Each is one hour; 0 keeps the newest content alone.")
	}
	spec.RecoveryPoints = int32(f.points)
	return nil
}

func (f *settingFlags) readHRLLimit(spec *vmreplicav1.ReplicationSpec) error {
	percent := 0
	if f.hrlLimit != "none" {
		var err error
		if percent, err = strconv.Atoi(strings.TrimSuffix(f.hrlLimit, "%")); err != nil {
			return misused("%q is no percentage", f.hrlLimit).
				Try("Give whole percents of the VM's total disk size, as in 50; none is no limit.")
		}
	}
	if err := replication.CheckHRLLimit(percent); err != nil {
		return err
	}
	spec.HrlLimitPercent = proto.Int32(int32(percent))
	return nil
}

func (f *settingFlags) readSocket(spec *vmreplicav1.ReplicationSpec) error {
	if f.qmpSocket == "" || f.qmpSocket == "none" {
		return nil
	}
	if !path.IsAbs(f.qmpSocket) && !windowsAbsolute(f.qmpSocket) {
		return misused("the QMP socket's path %q is not absolute", f.qmpSocket).
			Try("Give the path as it is on the primary's host: --%s /run/web01.qmp", flagQMPSocket)
	}
	spec.QmpSocket = f.qmpSocket
	return nil
}

// autoResyncWords are the modes as operators name them.
var autoResyncWords = []string{
	replication.AutoResyncOff.String(), replication.AutoResyncAlways.String(), replication.AutoResyncWindow.String(),
}

var autoResyncModes = map[string]vmreplicav1.AutoResync_Mode{
	replication.AutoResyncOff.String():    vmreplicav1.AutoResync_MODE_OFF,
	replication.AutoResyncAlways.String(): vmreplicav1.AutoResync_MODE_ALWAYS,
	replication.AutoResyncWindow.String(): vmreplicav1.AutoResync_MODE_WINDOW,
}

// readAutoResync changes what was given of the policy and keeps the rest. A window that would not be looked at is
// refused: who gives one expects it to hold.
func (f *settingFlags) readAutoResync(spec *vmreplicav1.ReplicationSpec, present *vmreplicav1.AutoResync) error {
	policy := &vmreplicav1.AutoResync{}
	proto.Merge(policy, present)
	if f.given(flagAutoResync) {
		mode, known := autoResyncModes[f.autoResync]
		if !known {
			return misused("there is no automatic resync %q", f.autoResync).
				Try("Give --%s with one of %s.", flagAutoResync, strings.Join(autoResyncWords, ", "))
		}
		policy.Mode = mode
	}
	if off := policy.GetMode(); f.given(flagWindow, flagTimeZone, flagPauseAtEnd) &&
		(off == vmreplicav1.AutoResync_MODE_OFF || off == vmreplicav1.AutoResync_MODE_ALWAYS) {
		return misused("with the automatic resync %s no window is looked at", autoResyncWords[off-vmreplicav1.AutoResync_MODE_OFF]).
			Try("Give --%s window as well, or leave the window, its zone and its end away.", flagAutoResync)
	}
	if f.given(flagWindow) {
		if _, err := replication.ParseWindow(f.window); err != nil {
			return err
		}
		policy.Window = f.window
	}
	if f.given(flagTimeZone) {
		policy.TimeZone = f.timeZone
		if f.timeZone == localZone {
			policy.TimeZone = ""
		}
	}
	if f.given(flagPauseAtEnd) {
		policy.PauseAtEnd = f.pauseAtEnd
	}
	spec.AutoResync = policy
	return nil
}
