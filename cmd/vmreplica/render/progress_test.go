package render_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// clock is moved by the test.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// expect checks the lines that step adds.
func expect(t *testing.T, out *strings.Builder, what string, step func(), want ...string) {
	t.Helper()
	out.Reset()
	step()
	got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if out.Len() == 0 {
		got = nil
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestLinesWithoutATerminal(t *testing.T) {
	out, c := &strings.Builder{}, &clock{now}
	p := render.NewProgress(out, false, c.now)
	show := func(r *vmreplicav1.Resync) func() { return func() { p.Show(r) } }

	scheduled := running(0)
	scheduled.State, scheduled.StartTime = vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED, timestamppb.New(now.Add(time.Hour))
	expect(t, out, "scheduled", show(scheduled), "web01: scheduled for 2026-11-22 23:30:00 +01:00")
	c.at = c.at.Add(29 * time.Second)
	expect(t, out, "nothing new within 30 s", show(scheduled))
	c.at = c.at.Add(time.Second)
	expect(t, out, "30 s of silence", show(scheduled), "web01: still scheduled for 2026-11-22 23:30:00 +01:00")

	expect(t, out, "comparing", show(running(0)), "web01: comparing")
	expect(t, out, "less than a tenth", show(running(99)))
	expect(t, out, "a tenth", show(running(100)),
		"web01: disk root: 10% of 1000.0 MiB compared, 100.0 KiB differing, 50.0 KiB sent, 100.0 MiB/s, ETA 7s")
	c.at = c.at.Add(30 * time.Second)
	expect(t, out, "30 s without a tenth", show(running(101)),
		"web01: disk root: 10% of 1000.0 MiB compared, 101.0 KiB differing, 50.5 KiB sent, 100.0 MiB/s, ETA 7s",
		"web01: disk data: 0% of 1000.0 MiB compared, 0 B differing, 0 B sent, 100.0 MiB/s, ETA 7s")

	waiting := running(101)
	waiting.NextAttemptTime, waiting.Reason = timestamppb.New(c.at.Add(5*time.Second)), "REPLICA_UNREACHABLE"
	expect(t, out, "backing off", show(waiting), "web01: waiting until 2026-11-22 22:31:05 +01:00 to try again (REPLICA_UNREACHABLE)")
	suspended := running(101)
	suspended.Suspended, suspended.SuspendReason = true, "link"
	expect(t, out, "suspended", show(suspended), "web01: suspended: link; resume it with: vmreplica resume web01")

	committed := done()
	committed.State, committed.EndTime = vmreplicav1.ResyncState_RESYNC_STATE_COMMITTED, nil
	expect(t, out, "committed", show(committed),
		"web01: disk root: 100% of 1000.0 MiB compared, 64.0 KiB differing, 80.0 KiB sent",
		"web01: disk data: 100% of 1000.0 MiB compared, 64.0 KiB differing, 80.0 KiB sent",
		"web01: committed: the replica has the new content")
	merging := done()
	merging.State, merging.EndTime = vmreplicav1.ResyncState_RESYNC_STATE_MERGING, nil
	merging.Disks[0].Progress = &vmreplicav1.TransferProgress{MergedBytes: 32 << 10, MergeTotalBytes: 64 << 10}
	expect(t, out, "merging", show(merging), "web01: merging on the replica", "web01: disk root: 50% of 64.0 KiB merged")
	skipped := render.NewProgress(out, false, c.now)
	skipped.Show(running(1000))
	expect(t, out, "a commit that the watch skipped", func() { skipped.Show(done()) },
		"web01: disk data: 100% of 1000.0 MiB compared, 64.0 KiB differing, 80.0 KiB sent",
		"web01: committed: the replica has the new content", "web01: done")
	expect(t, out, "a note", func() { p.Note("connection %s", "lost\x1b[2J") }, "connection lost[2J")
	p.Close()
}

// screen is written by the library's goroutine.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func TestBarsShowFiguresAndLeaveNothingRunning(t *testing.T) {
	out, c := &screen{}, &clock{now}
	p := render.NewProgress(out, true, c.now)
	p.Show(running(420))
	p.Note("connection lost")
	ended := done()
	p.Show(ended)
	p.Close()
	text := out.text.String()
	for _, want := range []string{"web01: comparing", "connection lost", "web01: committed", "web01: done", "root 100%", "data 100%", "compared 1000.0 MiB", "sent 80.0 KiB"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
}

func TestBarsOfAResyncThatNeverMoved(t *testing.T) {
	out := &screen{}
	p := render.NewProgress(out, true, time.Now)
	scheduled := running(0)
	scheduled.State, scheduled.StartTime = vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED, nil
	p.Show(scheduled)
	p.Close()
	if !strings.Contains(out.text.String(), "waiting to begin") {
		t.Errorf("got %q", out.text.String())
	}
}
