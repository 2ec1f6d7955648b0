package render_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestWhatIsWaitedForIsSaidOnce(t *testing.T) {
	out, c := &strings.Builder{}, &clock{now}
	p := render.NewProgress(out, false, c.now)
	waiting := func() *vmreplicav1.Resync {
		r := running(101)
		r.NextAttemptTime, r.Reason = timestamppb.New(c.at.Add(5*time.Second)), "STORAGE_FULL"
		r.Problem, r.Remedy = "no room at /storage", "Free space there"
		return r
	}
	p.Show(waiting())
	if !strings.Contains(out.String(), "waiting to try again (STORAGE_FULL): no room at /storage. Free space there.\n") {
		t.Fatalf("%s", out)
	}
	expect(t, out, "the next attempts", func() {
		for range 3 {
			c.at = c.at.Add(6 * time.Second)
			p.Show(waiting())
		}
	})
	merging := done()
	merging.State, merging.EndTime, merging.CommitTime = vmreplicav1.ResyncState_RESYNC_STATE_MERGING, nil, nil
	merging.Problem, merging.NextAttemptTime = "the replica cannot be reached", timestamppb.New(c.at.Add(time.Second))
	out.Reset()
	p.Show(merging)
	if !strings.Contains(out.String(), "merging on the replica; it waits: the replica cannot be reached.\n") || strings.Contains(out.String(), "()") {
		t.Fatalf("%s", out)
	}
}

func TestAStallAndAFarEndAreNotForetold(t *testing.T) {
	row := func(progress *vmreplicav1.TransferProgress) string {
		r := well()
		r.Status.Activity = vmreplicav1.Activity_ACTIVITY_COMPARING
		r.Status.Disks[0].Progress = progress
		var out bytes.Buffer
		if err := (render.Printer{Out: &out, Format: render.Table, Now: func() time.Time { return now }}).Replication(r); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	stalled := row(&vmreplicav1.TransferProgress{SizeBytes: 100, ComparedBytes: 10, StalledSince: ago(42 * time.Second)})
	if !strings.Contains(stalled, "10% stalled for 42s") || strings.Contains(stalled, "ETA") {
		t.Errorf("%s", stalled)
	}
	far := row(&vmreplicav1.TransferProgress{
		SizeBytes: 100, ComparedBytes: 10, RateBytesPerSecond: 1, Eta: durationpb.New(330 * time.Hour),
	})
	if !strings.Contains(far, "10% 1 B/s ETA 13d") {
		t.Errorf("%s", far)
	}
}

func TestAScheduledResyncIsShown(t *testing.T) {
	r := well()
	r.Status.NextResyncTime = timestamppb.New(now.Add(2 * time.Hour))
	var out bytes.Buffer
	p := render.Printer{Out: &out, Format: render.Table, Now: func() time.Time { return now }}
	if err := p.Replication(r); err != nil || !strings.Contains(out.String(), "resync at 2026-11-23 00:30:00 +01:00") {
		t.Errorf("%s, %v", &out, err)
	}
	out.Reset()
	if err := p.Describe(r, nil); err != nil || !strings.Contains(out.String(), "Next resync           2026-11-23 00:30:00 +01:00 (in 2h)") {
		t.Errorf("%s, %v", &out, err)
	}
}
