package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestLifeOfAnEmptyReplica(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), 100*mib+512, 1)
	p.replica.do("authorize", primaryName)
	p.primary.try("test-connection", p.reached).wants(t, 0, "dns", "entry", "clock", "passed")
	p.primary.try("enable", vm, "--disk", p.image(), "--replica", p.reached, "--dry-run").wants(t, 0, "nothing was changed")
	p.primary.try("get", vm).wants(t, 3)
	p.primary.try("enable", vm, "--disk", p.image(), "--replica", p.reached).wants(t, 0, "Next: vmreplica", "start-initial "+vm+" --wait")
	p.primary.try("enable", vm, "--disk", p.image(), "--replica", p.reached).wants(t, 0, "unchanged")
	p.primary.try("resync", vm).wants(t, 4, "start-initial")
	p.primary.try("start-initial", vm, "--wait").wants(t, 0, "Done", "proven equal")
	equal(t, p.image(), p.base())
	p.primary.try("get").wants(t, 0, vm, "Replicating", "Normal")
	p.replica.try("get").wants(t, 0, vm, "Replicating", "Normal")
	p.primary.try("check").wants(t, 0, "OK")
	p.primary.try("describe", vm).wants(t, 0, "Lineage", "Proven root", "not tracked")
	p.replica.try("describe", vm).wants(t, 0, p.base(), "Base")
	p.primary.try("verify", vm, "--wait").wants(t, 0, "equal")
	p.primary.try("set", vm, "--label", "site=berlin").wants(t, 0)
	got := decode(t, p.primary.do("get", vm, "-o", "json"), &vmreplicav1.Replication{})
	if got.GetLabels()["site"] != "berlin" || got.GetStatus().GetLineage() == "" {
		t.Errorf("labels %v, lineage %q", got.GetLabels(), got.GetStatus().GetLineage())
	}
	p.primary.try("remove", vm).wants(t, 0, "was left")
	equal(t, p.image(), p.base())
	p.primary.try("get", vm).wants(t, 3)
	p.replica.try("get", vm).wants(t, 3)
	p.replica.stop()
	p.primary.stop()
}

func TestLifeOfAnAdoptedReplica(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const size = 160 * mib
	fill(t, p.image(), size, 2)
	copyFile(t, p.image(), p.base())
	differing := rewrite(t, p.image(), 20, 3)
	p.enabled("--use-existing")
	first := decode(t, p.primary.do("start-initial", vm, "--wait", "-o", "json"), &vmreplicav1.Resync{})
	checkFigures(t, first, size, differing)
	equal(t, p.image(), p.base())

	differing = rewrite(t, p.image(), 50, 4)
	second := decode(t, p.primary.do("resync", vm, "--wait", "-o", "json"), &vmreplicav1.Resync{})
	checkFigures(t, second, size, differing)
	equal(t, p.image(), p.base())
	if first.GetLineage() == second.GetLineage() || first.GetDisks()[0].GetRoot() == second.GetDisks()[0].GetRoot() {
		t.Error("another content has the same lineage or root")
	}
	p.primary.try("resyncs", vm).wants(t, 0, "Initial", "Resync", "Done")
	checkEvents(t, p.primary.do("events", vm, "-o", "json"), second)
	p.primary.do("remove", vm, "--delete-replica-data")
	if _, err := os.Stat(p.base()); !os.IsNotExist(err) {
		t.Errorf("the replica's disk after remove --delete-replica-data: %v", err)
	}
	if _, err := os.Stat(p.image()); err != nil {
		t.Error(err)
	}
}

// checkFigures compares what a resync says with what was done to the image.
func checkFigures(t *testing.T, r *vmreplicav1.Resync, size, differing int64) {
	t.Helper()
	disk := r.GetDisks()[0]
	if r.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_DONE || r.GetResult() == "" || disk.GetId() != "root.img" ||
		disk.GetSizeBytes() != size || disk.GetBlocksCompared() != (size+block-1)/block ||
		len(disk.GetRoot()) != 64 || disk.GetDuration().AsDuration() <= 0 || r.GetDuration().AsDuration() <= 0 {
		t.Errorf("the resync shows %v", r)
	}
	if disk.GetBlocksDiffering() != differing || disk.GetBytesDiffering() != differing*block {
		t.Errorf("%d blocks and %d bytes differed, want %d and %d",
			disk.GetBlocksDiffering(), disk.GetBytesDiffering(), differing, differing*block)
	}
	// Random bytes do not shrink; all else is digests.
	if most := differing*block + differing*block/50 + 64<<10; disk.GetWireBytesSent() > most || disk.GetWireBytesSent() < differing*block {
		t.Errorf("%d bytes were sent for %d differing", disk.GetWireBytesSent(), differing*block)
	}
	if most := size/block*8 + differing*16*8 + 64<<10; disk.GetWireBytesReceived() > most || disk.GetWireBytesReceived() == 0 {
		t.Errorf("%d bytes were received, want at most %d", disk.GetWireBytesReceived(), most)
	}
}

func checkEvents(t *testing.T, lines string, r *vmreplicav1.Resync) {
	t.Helper()
	type event struct {
		ID                      int
		Sequence                string
		Time, VM, Disk, Message string
		Details                 map[string]string
	}
	seen := map[int]event{}
	for line := range strings.Lines(lines) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if e.Sequence == "" || e.Time == "" || e.Message == "" || e.VM != vm {
			t.Errorf("an event lacks something: %s", line)
		}
		seen[e.ID] = e
	}
	for _, id := range []int{29242, 29244} {
		if e := seen[id]; e.Disk != "root.img" || e.Details["resync"] != r.GetId() {
			t.Errorf("event %d: %+v", id, e)
		}
	}
	if d := seen[29244].Details; d["blocks_sent"] == "" || d["bytes"] == "" || d["duration"] == "" || d["result"] != "completed" {
		t.Errorf("event 29244 has %v", d)
	}
}

func TestCancelLeavesTheReplicaAsItWas(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(64*mib, 5)
	before := hash(t, p.base())
	p.limit("4MiB/s")
	rewrite(t, p.image(), 1, 6)
	p.primary.try("cancel-resync", vm).wants(t, 4)
	p.primary.do("resync", vm)
	s := p.primary.services()
	eventually(t, "something was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 8*mib })
	p.primary.try("resync", vm).wants(t, 4, "RESYNC_RUNNING", s.newest(t.Context()).GetId())
	p.primary.do("cancel-resync", vm)
	if !bytes.Equal(before, hash(t, p.base())) {
		t.Error("a cancelled resync changed the base")
	}
	p.primary.try("get", vm).wants(t, 0, "WaitingForStartResynchronize", "Critical",
		"Resynchronization is required for the virtual machine "+vm+". Resume replication to start resynchronization")
	eventually(t, "the differencing disk is gone", func() bool { return len(layers(p)) == 1 })
	p.limit("none")
	p.primary.try("resync", vm, "--wait").wants(t, 0, "proven equal")
	equal(t, p.image(), p.base())
	p.primary.try("cancel-resync", vm).wants(t, 4)
}

// layers are the files of the VM on the replica.
func layers(p *pair) []os.DirEntry {
	p.t.Helper()
	entries, err := os.ReadDir(p.storage + "/" + primaryName + "/" + vm)
	if err != nil {
		p.t.Fatal(err)
	}
	return entries
}

func hash(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		t.Fatal(err)
	}
	return sum.Sum(nil)
}

func TestCtrlCLeavesTheResyncRunning(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(48*mib, 7)
	p.limit("16MiB/s")
	rewrite(t, p.image(), 1, 8)
	waiting := command(operatorName, p.primary, "resync", vm, "--wait")
	var said bytes.Buffer
	waiting.Stderr = &said
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	s := p.primary.services()
	eventually(t, "something was sent", func() bool {
		r := s.newest(t.Context())
		return r.GetKind() == vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC && r.GetDisks()[0].GetBytesDiffering() > 4*mib
	})
	if err := waiting.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = waiting.Wait()
	if code := waiting.ProcessState.ExitCode(); code != 130 || !strings.Contains(said.String(), "goes on") {
		t.Errorf("exit code %d after Ctrl-C, and it says:\n%s", code, said.String())
	}
	if state := s.newest(t.Context()).GetState(); state != vmreplicav1.ResyncState_RESYNC_STATE_COMPARING {
		t.Errorf("after Ctrl-C the resync is %s", state)
	}
	p.ends(s)
	equal(t, p.image(), p.base())
}

// ends waits until the newest resync is done.
func (p *pair) ends(s services) *vmreplicav1.Resync {
	p.t.Helper()
	var last *vmreplicav1.Resync
	eventually(p.t, "the resync is done", func() bool {
		if last = s.newest(p.t.Context()); last.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_FAILED {
			p.t.Fatalf("the resync failed: %v", last)
		}
		return last.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_DONE
	})
	return last
}

func TestBandwidthLimitHoldsWhileRunning(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	scrambled(t, p.image(), 128*mib, 9)
	p.enabled()
	p.limit("3MiB/s")
	p.primary.try("agent", "get", "-o", "json").wants(t, 0, `"bandwidthLimitBytesPerSecond": "3145728"`)
	p.primary.do("start-initial", vm)
	s := p.primary.services()
	slow := p.rate(s)
	p.limit("12MiB/s")
	fast := p.rate(s)
	t.Logf("%.1f MiB/s, then %.1f MiB/s", slow/mib, fast/mib)
	// A busy machine may be slower than a limit, nothing may be faster.
	if slow > 3.6*mib || fast > 14*mib || fast < 2*slow {
		t.Errorf("limits of 3 and 12 MiB/s gave %.1f and %.1f MiB/s", slow/mib, fast/mib)
	}
	p.limit("none")
	p.ends(s)
	equal(t, p.image(), p.base())
}

// rate measures what crosses the wire a second, between two moments at which the agent counted it.
func (p *pair) rate(s services) float64 {
	p.t.Helper()
	var counted int64
	next := func() time.Time {
		eventually(p.t, "the bytes sent are counted", func() bool {
			now := s.newest(p.t.Context()).GetDisks()[0].GetWireBytesSent()
			changed := now > counted
			counted = max(counted, now)
			return changed
		})
		return time.Now()
	}
	next()
	began := next()
	first := counted
	next()
	ended := next()
	return float64(counted-first) / ended.Sub(began).Seconds()
}

func TestSuspendKeepsThePosition(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(96*mib, 10)
	p.limit("10MiB/s")
	rewrite(t, p.image(), 1, 11)
	p.primary.do("resync", vm)
	primary, replica := p.primary.services(), p.replica.services()
	eventually(t, "a cursor is durable", func() bool { return cursor(t, replica) > 0 })
	p.primary.try("suspend", vm, "--reason", "link maintenance").wants(t, 0, "ResynchronizeSuspended", "the machine itself runs on")
	p.primary.try("get", vm).wants(t, 0, "ResynchronizeSuspended", "link maintenance")
	held := cursor(t, replica)
	before := primary.newest(t.Context())
	p.primary.stop()
	p.primary.start()
	p.primary.try("get", vm).wants(t, 0, "ResynchronizeSuspended")
	if now := cursor(t, replica); now < held || held == 0 {
		t.Errorf("the cursor was %d and is %d", held, now)
	}
	p.limit("none")
	p.primary.do("resume", vm)
	done := p.ends(primary)
	if done.GetId() != before.GetId() || done.GetRestarts() != 0 {
		t.Errorf("another resync ended: %v", done)
	}
	equal(t, p.image(), p.base())
}

// cursor is what the replica's record holds of the running transfer, in bytes; 0 when there is none.
func cursor(t *testing.T, replica services) int64 {
	t.Helper()
	if disks := replica.status(t.Context()).GetDisks(); len(disks) == 1 {
		return disks[0].GetProgress().GetCursorBytes()
	}
	return 0
}
