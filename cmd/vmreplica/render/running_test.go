package render_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func ahead(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }

// tracked is a machine that runs and is in step.
func tracked() *vmreplicav1.Replication {
	r := well()
	r.Spec.Interval, r.Spec.RecoveryPoints, r.Spec.HrlLimitPercent = durationpb.New(30*time.Second), 4, proto.Int32(50)
	r.Spec.AutoResync = &vmreplicav1.AutoResync{Mode: vmreplicav1.AutoResync_MODE_WINDOW, Window: "18:30-06:00", TimeZone: "Europe/Berlin"}
	s := r.Status
	s.Tracked, s.Attached, s.PendingBytes, s.HrlAccumulationPercent = true, true, 12<<20, 12.5
	s.LastSynchronizedTime, s.LastSynchronizedDuration = ago(20*time.Second), durationpb.New(1400*time.Millisecond)
	s.NextCycleTime = ahead(10 * time.Second)
	s.LastCycle = &vmreplicav1.Cycle{
		Cut: s.Cut, CutTime: ago(22 * time.Second), EndTime: ago(20 * time.Second), Duration: durationpb.New(1400 * time.Millisecond),
		SentBytes: 4 << 20, WireBytes: 1 << 20,
	}
	s.Statistics.CyclesCompleted, s.Statistics.CyclesMissed, s.Statistics.CyclesFailed = 100, 3, 1
	s.Statistics.ReplicatedBytes, s.Statistics.MaxCycleBytes = 400<<20, 64<<20
	s.Statistics.AverageCycleDuration, s.Statistics.MaxCycleDuration = durationpb.New(2*time.Second), durationpb.New(40*time.Second)
	return r
}

// lost is one whose host was lost, and that waits for its window.
func lost() *vmreplicav1.Replication {
	r := tracked()
	r.Name = "db01"
	s := r.Status
	s.State, s.Health = vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE, vmreplicav1.Health_HEALTH_CRITICAL
	s.ResyncCause, s.ResyncEvidence = vmreplicav1.ResyncCause_RESYNC_CAUSE_HRL_NOT_CLOSED_CLEANLY, "opened in boot 1, found in boot 2"
	s.NextCycleTime = nil
	s.NextResyncWindowTime = ahead(2 * time.Hour)
	s.HealthReasons = []*vmreplicav1.HealthReason{{
		Code: "RESYNC_REQUIRED", Health: vmreplicav1.Health_HEALTH_CRITICAL, Since: ago(time.Hour),
		Message: "Resynchronization is required for the virtual machine db01. Resume replication to start resynchronization.",
		Remedy:  "It starts in its window; at once: vmreplica resync db01",
	}}
	return r
}

// failedOver is a replica that is the machine's now.
func failedOver() *vmreplicav1.Replication {
	r := well()
	r.Spec = nil
	s := r.Status
	s.Mode, s.State = vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA, vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER
	s.FailoverTime, s.FailoverPoint = ago(time.Minute), s.Cut
	s.RecoveryPoints = []*vmreplicav1.RecoveryPoint{
		{Id: s.Lineage, Time: ago(time.Hour), AllocatedBytes: 5 << 20, Readers: 1}, {Id: s.Cut, Time: ago(time.Minute), Latest: true, AllocatedBytes: -1},
	}
	return r
}

func TestGoldenRunningMachines(t *testing.T) {
	all := &vmreplicav1.ListReplicationsResponse{Replications: []*vmreplicav1.Replication{lost(), failedOver(), tracked()}}
	for _, format := range []render.Format{render.Table, render.Wide} {
		golden(t, "running."+string(format), format, func(p render.Printer) error { return p.Replications(all) })
		golden(t, "points."+string(format), format, func(p render.Printer) error {
			return p.RecoveryPoints(&vmreplicav1.ListRecoveryPointsResponse{RecoveryPoints: failedOver().Status.RecoveryPoints})
		})
	}
	golden(t, "measures.table", render.Table, func(p render.Printer) error { return p.Measures(all) })
	golden(t, "measure.table", render.Table, func(p render.Printer) error { return p.Measure(tracked()) })
	golden(t, "describe-tracked.table", render.Table, func(p render.Printer) error { return p.Describe(tracked(), nil) })
	golden(t, "describe-lost.table", render.Table, func(p render.Printer) error { return p.Describe(lost(), nil) })
	golden(t, "describe-failed-over.table", render.Table, func(p render.Printer) error { return p.Describe(failedOver(), nil) })
	golden(t, "resync-online.table", render.Table, func(p render.Printer) error {
		r := done()
		r.Rounds, r.Disks[0].CaughtUpBytes, r.Disks[1].MarksOnly = 3, 14<<20, true
		return p.Resync(r)
	})
	golden(t, "failover.table", render.Table, func(p render.Printer) error {
		return p.Failover(&vmreplicav1.Failover{Vm: "web01", PointTime: ago(time.Minute), Term: 2,
			Disks:         []*vmreplicav1.FailoverDisk{{Id: "root", Path: "/srv/p1/web01/root", Format: "raw"}},
			QemuArguments: []string{"-blockdev 'x'", "-device y"}, Notes: []string{"Start it here."}})
	})
}

// Every word of the wire has one for people, or an operator meets a bare name.
func TestEveryCauseAndStateIsExplained(t *testing.T) {
	page := func(change func(*vmreplicav1.ReplicationStatus)) string {
		r := well()
		change(r.Status)
		var text strings.Builder
		if err := (render.Printer{Out: &text, Format: render.Table, Now: func() time.Time { return now }}).Describe(r, nil); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	for number := range vmreplicav1.ResyncCause_name {
		cause := vmreplicav1.ResyncCause(number)
		text := page(func(s *vmreplicav1.ReplicationStatus) { s.ResyncCause, s.ResyncEvidence = cause, "seen" })
		explained := strings.Contains(text, "Resync required       "+render.Word(cause)+": ") && strings.Contains(text, "What to do            ")
		if explained != (number != 0) {
			t.Errorf("%s: %s", cause, text)
		}
	}
	for number := range vmreplicav1.ReplicationState_name {
		state := vmreplicav1.ReplicationState(number)
		text := page(func(s *vmreplicav1.ReplicationStatus) { s.State = state })
		if number != 0 && !strings.Contains(text, "State                 "+render.Word(state)+": ") {
			t.Errorf("%s: %s", state, text)
		}
	}
}

func TestTheHRLIsShownOfItsLimit(t *testing.T) {
	row := func(change func(*vmreplicav1.Replication)) string {
		r := tracked()
		change(r)
		var text strings.Builder
		if err := (render.Printer{Out: &text, Format: render.Table, Now: func() time.Time { return now }}).Replication(r); err != nil {
			t.Fatal(err)
		}
		return text.String()
	}
	for want, change := range map[string]func(*vmreplicav1.Replication){
		" 12.0 MiB  25%  ":      func(*vmreplicav1.Replication) {},
		" 12.0 MiB  no limit  ": func(r *vmreplicav1.Replication) { r.Spec.HrlLimitPercent = proto.Int32(0) },
		" 12.0 MiB  12%  ":      func(r *vmreplicav1.Replication) { r.Spec.HrlLimitPercent = proto.Int32(100) },
		"4.0 MiB  -        -  ": func(r *vmreplicav1.Replication) { r.Status.PendingBytes = -1 },
		" 1.4s  -     12.0":     func(r *vmreplicav1.Replication) { r.Status.Cut = "another" },
		" 3.0 MiB sent 1.0 MiB/s": func(r *vmreplicav1.Replication) {
			r.Status.Activity = vmreplicav1.Activity_ACTIVITY_SENDING
			r.Status.Disks[0].Progress = &vmreplicav1.TransferProgress{WireSentBytes: 3 << 20, RateBytesPerSecond: 1 << 20}
		},
	} {
		if got := row(change); !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestMonitoringOfRunningMachines(t *testing.T) {
	line, _ := render.Monitor([]*vmreplicav1.Replication{tracked()}, now)
	const want = " web01_sync_age=20s;;;0 web01_pending=12582912B;;;0 web01_hrl=12.5%;;50;0;100 web01_missed=3c "
	if !strings.Contains(line, want) {
		t.Errorf("%q is not in %q", want, line)
	}
	line, code := render.Monitor([]*vmreplicav1.Replication{lost()}, now)
	if code != render.MonitorCritical || !strings.Contains(line, "Resume replication to start resynchronization") || !strings.Contains(line, "db01_pending=") {
		t.Errorf("%d %q", code, line)
	}
}

func TestLinesWhileCatchingUp(t *testing.T) {
	out, c := &strings.Builder{}, &clock{now}
	p := render.NewProgress(out, false, c.now)
	p.Show(running(1000))
	catching := func(rounds uint32) *vmreplicav1.Resync {
		r := running(1000)
		r.State, r.Rounds, r.Disks[1].Progress.ComparedBytes = vmreplicav1.ResyncState_RESYNC_STATE_CATCHING_UP, rounds, 1000<<20
		r.Disks[0].CaughtUpBytes, r.Disks[1].CaughtUpBytes = 3<<20, 1<<20
		return r
	}
	expect(t, out, "the pass is done", func() { p.Show(catching(0)) },
		"web01: disk data: 100% of 1000.0 MiB compared, 0 B differing, 0 B sent, 100.0 MiB/s, ETA 7s",
		"web01: catching up with what was written meanwhile")
	expect(t, out, "a round", func() { p.Show(catching(1)) }, "web01: catching up with what was written meanwhile, round 1")
	c.at = c.at.Add(30 * time.Second)
	expect(t, out, "30 s of silence", func() { p.Show(catching(1)) },
		"web01: still catching up with what was written meanwhile, round 1, 4.0 MiB sent")
}

func TestCopyingSaysTenthsRateAndEnd(t *testing.T) {
	out, c := &strings.Builder{}, &clock{now}
	p := render.NewCopying(out, false, c.now)
	expect(t, out, "the size is not known yet", func() { p.Show("root", 0, 0) })
	expect(t, out, "its beginning", func() { p.Show("root", 0, 1000<<20) }, "root: 0% of 1000.0 MiB")
	c.at = c.at.Add(10 * time.Second)
	expect(t, out, "less than a tenth", func() { p.Show("root", 99<<20, 1000<<20) })
	expect(t, out, "a tenth", func() { p.Show("root", 200<<20, 1000<<20) }, "root: 20% of 1000.0 MiB, 20.0 MiB/s, ETA 40s")
	c.at = c.at.Add(30 * time.Second)
	expect(t, out, "30 s of silence", func() { p.Show("root", 200<<20, 1000<<20) }, "root: 20% of 1000.0 MiB, 5.0 MiB/s, ETA 2m40s")
	expect(t, out, "its end", func() { p.Show("root", 1000<<20, 1000<<20) }, "root: 100% of 1000.0 MiB, 25.0 MiB/s")
	expect(t, out, "its end again", func() { p.Show("root", 1000<<20, 1000<<20) })
	expect(t, out, "a note", func() { p.Note("lost\x1b[2J") }, "lost[2J")
	p.Close()
	bars := &screen{}
	p = render.NewCopying(bars, true, c.now)
	p.Show("root", 10<<20, 1000<<20)
	p.Note("connection lost")
	p.Show("root", 1000<<20, 1000<<20)
	p.Close()
	for _, want := range []string{"connection lost", "root 100%", "1000.0 MiB"} {
		if !strings.Contains(bars.text.String(), want) {
			t.Errorf("%q is not in %q", want, bars.text.String())
		}
	}
}
