package command_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/internal/failure"
	v1 "vmreplica/proto/vmreplica/v1"
)

func TestEnableAsksForSettings(t *testing.T) {
	a := newAgent(t, "primary")
	fail[*v1.GetReplicationRequest, *v1.Replication](a, "Get", failure.New(failure.NotFound, failure.ReasonNotFound, "no such VM"))
	answer(a, "Create", func(r *v1.CreateReplicationRequest) (*v1.Replication, error) {
		made := ready()
		made.Spec = r.GetReplication().GetSpec()
		return made, nil
	})
	enable := []string{"enable", "web01", "--disk", "/i/root.img", "--replica", "r:7443"}
	a.run(append(enable, "--interval", "30s", "--recovery-points", "4", "--auto-resync", "window", "--auto-resync-window", "22:00-05:30",
		"--auto-resync-time-zone", "Europe/Berlin", "--auto-resync-pause-at-end", "--hrl-limit", "0", "--qmp-socket", "/run/web01.qmp")...).
		expect(t, 0, "Next: vmreplica attach-info web01\n", "")
	want := &v1.ReplicationSpec{
		Disks:          []*v1.DiskSpec{{Id: "root.img", Path: "/i/root.img", Format: v1.DiskFormat_DISK_FORMAT_RAW}},
		ReplicaAddress: "r:7443", Interval: durationpb.New(30 * time.Second), RecoveryPoints: 4,
		AutoResync: &v1.AutoResync{
			Mode: v1.AutoResync_MODE_WINDOW, Window: "22:00-05:30", TimeZone: "Europe/Berlin", PauseAtEnd: true,
		},
		HrlLimitPercent: proto.Int32(0), QmpSocket: "/run/web01.qmp",
	}
	if got := asked[*v1.CreateReplicationRequest](a)[0].GetReplication().GetSpec(); !proto.Equal(got, want) {
		t.Errorf("asked for %v", got)
	}
	// What is not given is left to the agent, so that a later default is not frozen here.
	a.run(enable...).expect(t, 0, "Then: vmreplica start-initial web01 --wait\n", "")
	if got := asked[*v1.CreateReplicationRequest](a)[1].GetReplication().GetSpec(); got.Interval != nil || got.AutoResync != nil || got.HrlLimitPercent != nil {
		t.Errorf("asked for %v", got)
	}
	// What cannot be attached is not attached first.
	a.run("enable", "web01", "--disk", "/i/a.img", "--disk", "/i/b.qcow2,format=qcow2", "--replica", "r:7443").
		expect(t, 0, "Next: vmreplica start-initial web01 --wait\n", "")
}

func TestSetChangesSeveralAtOnce(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) {
		present := ready()
		present.Spec.AutoResync = &v1.AutoResync{Mode: v1.AutoResync_MODE_WINDOW, Window: "18:30-06:00", TimeZone: "Asia/Tokyo", PauseAtEnd: true}
		return present, nil
	})
	answer(a, "Update", func(r *v1.UpdateReplicationRequest) (*v1.Replication, error) { return r.GetReplication(), nil })
	a.run("set", "web01", "--interval", "15m", "--recovery-points", "0", "--hrl-limit", "none", "--qmp-socket", "none",
		"--auto-resync-window", "01:00-02:00").
		expect(t, 0, "Changed for the VM web01: spec.interval, spec.recovery_points, spec.auto_resync, spec.hrl_limit_percent, spec.qmp_socket.", "")
	got := asked[*v1.UpdateReplicationRequest](a)[0]
	want := &v1.Replication{Name: "web01", Etag: "7", Spec: &v1.ReplicationSpec{
		Interval: durationpb.New(15 * time.Minute), HrlLimitPercent: proto.Int32(0),
		AutoResync: &v1.AutoResync{Mode: v1.AutoResync_MODE_WINDOW, Window: "01:00-02:00", TimeZone: "Asia/Tokyo", PauseAtEnd: true},
	}}
	if !proto.Equal(got.GetReplication(), want) || got.GetRequestId() == "" {
		t.Errorf("asked for %v", got)
	}
	// The window of before is kept under another mode, and the local zone is no zone on the wire.
	a.run("set", "web01", "--auto-resync", "always").expect(t, 0, "", "")
	a.run("set", "web01", "--auto-resync-time-zone", "local", "--auto-resync-pause-at-end=false").expect(t, 0, "", "")
	requests := asked[*v1.UpdateReplicationRequest](a)
	for i, want := range []*v1.AutoResync{
		{Mode: v1.AutoResync_MODE_ALWAYS, Window: "18:30-06:00", TimeZone: "Asia/Tokyo", PauseAtEnd: true},
		{Mode: v1.AutoResync_MODE_WINDOW, Window: "18:30-06:00"},
	} {
		got := requests[i+1]
		if !proto.Equal(got.GetReplication().GetSpec().GetAutoResync(), want) || !slices.Equal(got.GetUpdateMask().GetPaths(), []string{"spec.auto_resync"}) {
			t.Errorf("asked for %v", got)
		}
	}
}

func TestSettingsThatCannotBe(t *testing.T) {
	a := newAgent(t, "primary")
	answer(a, "Get", func(*v1.GetReplicationRequest) (*v1.Replication, error) {
		present := ready()
		present.Spec.AutoResync = &v1.AutoResync{Mode: v1.AutoResync_MODE_OFF}
		return present, nil
	})
	enable := []string{"enable", "web01", "--disk", "/i/root.img", "--replica", "r:7443"}
	for _, c := range []struct{ flags, teaches string }{
		{"--interval 30", "30s, 5m or 15m"},
		{"--interval 4s", "between 5s and 24h"},
		{"--interval 25h", "30s, 5m and 15m"},
		{"--recovery-points 25", "between 0 and 24"},
		{"--recovery-points -1", "newest content alone"},
		{"--hrl-limit 101", "between 0 and 100"},
		{"--hrl-limit half", "whole percents"},
		{"--auto-resync sometimes", "off, always, window"},
		{"--auto-resync window --auto-resync-window 22-5", "HH:MM-HH:MM"},
		{"--auto-resync off --auto-resync-window 22:00-05:00", "--auto-resync window"},
		{"--auto-resync always --auto-resync-pause-at-end", "the automatic resync always"},
		{"--qmp-socket web01.qmp", "--qmp-socket /run/web01.qmp"},
	} {
		flags := strings.Fields(c.flags)
		a.run(append(slices.Clone(enable), flags...)...).expect(t, 2, "", c.teaches)
		a.run(append([]string{"set", "web01"}, flags...)...).expect(t, 2, "", c.teaches)
	}
	if n := len(asked[*v1.GetReplicationRequest](a)); n > 0 {
		t.Errorf("the agent was asked %d times", n)
	}
	a.run("set", "web01", "--auto-resync-window", "22:00-05:00").expect(t, 2, "", "with the automatic resync off no window is looked at")
	if n := len(asked[*v1.UpdateReplicationRequest](a)); n > 0 {
		t.Errorf("%d were changed", n)
	}
}
