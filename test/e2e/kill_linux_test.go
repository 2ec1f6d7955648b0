package e2e_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// number is what the environment sets, or usual.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	set, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return set
}

func kills(t *testing.T) int { return int(number(t, "VMREPLICA_E2E_KILLS", 6)) }

func seed(t *testing.T) uint64 {
	t.Helper()
	seed := number(t, "VMREPLICA_E2E_SEED", rand.Uint64()%1e6)
	t.Logf("VMREPLICA_E2E_SEED=%d", seed)
	return seed
}

func TestKillTheReplica(t *testing.T) {
	t.Parallel()
	killing(t, func(p *pair) []*agent { return []*agent{p.replica} })
}

func TestKillThePrimary(t *testing.T) {
	t.Parallel()
	killing(t, func(p *pair) []*agent { return []*agent{p.primary} })
}

func TestKillBoth(t *testing.T) {
	t.Parallel()
	killing(t, func(p *pair) []*agent { return []*agent{p.replica, p.primary} })
}

// killing kills agents at a random moment of a resync, again and again. Each resync must go on by itself, keep its
// durable cursor, and end with equal bytes.
func killing(t *testing.T, which func(*pair) []*agent) {
	const size, rate = 96 * mib, 24
	seed := seed(t)
	random := random(seed)
	p := newPair(t)
	p.inStep(size, seed)
	p.limit(strconv.Itoa(rate) + "MiB/s")
	var kept, killed int
	for trial := range kills(t) {
		changed := rewrite(t, p.image(), 1, random.Uint64())
		p.primary.do("resync", vm)
		moment := time.Duration(random.Int64N(int64(1200*time.Millisecond) * size / mib / rate / 1))
		primary, replica := p.primary.services(), p.replica.services()
		began := time.Now()
		// What is watched is the replica's record of the cursor, which only a commit may take back.
		highest := p.watchCursor(replica, primary, began.Add(moment))
		state := primary.newest(t.Context()).GetState()
		for _, a := range which(p) {
			a.kill()
		}
		killed++
		for _, a := range which(p) {
			a.start()
		}
		if highest > 0 && state == vmreplicav1.ResyncState_RESYNC_STATE_COMPARING {
			kept++
			after := p.firstCursor(replica)
			if after >= 0 && after < highest {
				t.Errorf("trial %d: the cursor was %d and is %d after the kill", trial, highest, after)
			}
		}
		done := p.ends(p.primary.services())
		if done.GetRestarts() != 0 {
			t.Errorf("trial %d: the pass began again %d times", trial, done.GetRestarts())
		}
		disk := done.GetDisks()[0]
		if most := changed*block + lostByKill; disk.GetWireBytesSent() > most {
			t.Errorf("trial %d: %d bytes were sent for %d differing, killed after %s",
				trial, disk.GetWireBytesSent(), changed*block, moment)
		}
		if disk.GetBytesDiffering() > changed*block || disk.GetBlocksDiffering() > min(changed, size/(64<<10)) {
			t.Errorf("trial %d: %d blocks and %d bytes differed, and %d blocks of %d bytes were changed",
				trial, disk.GetBlocksDiffering(), disk.GetBytesDiffering(), changed, block)
		}
		equal(t, p.image(), p.base())
		t.Logf("trial %d: killed after %s as %s, cursor %d MiB", trial, moment.Round(time.Millisecond), state, highest/mib)
	}
	t.Logf("%d kills, %d with a durable cursor", killed, kept)
	if kept == 0 && killed >= 6 {
		t.Error("no kill met a durable cursor: nothing was shown about keeping it")
	}
}

// lostByKill is more than what may be sent since the last durable cursor: two seconds at the limit, the segment that
// is not whole, and what is under way.
const lostByKill = 2*24*mib + segment + 16*mib

// watchCursor follows the replica's cursor until a moment and answers the highest; it must never fall while the
// resync compares.
func (p *pair) watchCursor(replica, primary services, until time.Time) (highest int64) {
	p.t.Helper()
	for time.Now().Before(until) {
		if primary.newest(p.t.Context()).GetState() >= vmreplicav1.ResyncState_RESYNC_STATE_COMMITTING {
			return highest
		}
		now := cursor(p.t, replica)
		if now < highest && primary.newest(p.t.Context()).GetState() == vmreplicav1.ResyncState_RESYNC_STATE_COMPARING {
			p.t.Errorf("the cursor fell from %d to %d", highest, now)
		}
		highest = max(highest, now)
		time.Sleep(10 * time.Millisecond)
	}
	return highest
}

// firstCursor is the cursor that the replica has after a restart; -1 when the transfer has ended.
func (p *pair) firstCursor(replica services) int64 {
	p.t.Helper()
	var status *vmreplicav1.ReplicationStatus
	eventually(p.t, "the replica answers", func() bool {
		status = replica.status(p.t.Context())
		return status != nil
	})
	if progress := status.GetDisks()[0].GetProgress(); progress != nil && progress.GetMergeTotalBytes() == 0 {
		return progress.GetCursorBytes()
	}
	return -1
}

func TestKillDuringTheMerge(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const size = 256 * mib
	scrambled(t, p.image(), size, 20)
	copyFile(t, p.image(), p.base())
	p.enabled("--use-existing")
	p.primary.do("start-initial", vm, "--wait")
	replica := p.replica.services()
	met := 0
	for trial := range 4 {
		rewrite(t, p.image(), 1, uint64(21+trial))
		p.primary.do("resync", vm)
		merging := false
		eventually(t, "the replica merges", func() bool {
			disks := replica.status(t.Context()).GetDisks()
			if len(disks) == 0 {
				return false // the replica is starting
			}
			progress := disks[0].GetProgress()
			merging = progress.GetMergeTotalBytes() > 0 && progress.GetMergedBytes() < progress.GetMergeTotalBytes()
			state := p.primary.services().newest(t.Context()).GetState()
			return merging || state == vmreplicav1.ResyncState_RESYNC_STATE_DONE
		})
		if merging {
			met++
		}
		p.replica.kill()
		p.checkLayers()
		p.replica.start()
		p.ends(p.primary.services())
		equal(t, p.image(), p.base())
		if left := layers(p); len(left) != 1 {
			t.Errorf("after the merge the replica still has %v", left)
		}
		p.replica.try("events", vm).wants(t, 0, "60017")
	}
	if met == 0 {
		t.Error("no kill met a merge")
	}
	t.Logf("%d of 4 kills met a merge", met)
}

// checkLayers asks qemu-img whether the layer that an agent left behind is whole, and whether what it shows with the
// base below it is the primary's image. The copy it looks at is thrown away.
func (p *pair) checkLayers() (found int) {
	p.t.Helper()
	for _, entry := range layers(p) {
		path := filepath.Join(filepath.Dir(p.base()), entry.Name())
		magic := make([]byte, 4)
		file, err := os.Open(path)
		if err != nil {
			p.t.Fatal(err)
		}
		_, _ = file.Read(magic)
		file.Close()
		if string(magic) != "QFI\xfb" {
			continue
		}
		found++
		tool(p.t, "qemu-img", "check", "-f", "qcow2", path)
		tool(p.t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, p.image())
	}
	return found
}

func TestLayerOpensElsewhereAfterTheCommit(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(192*mib, 30)
	replica := p.replica.services()
	for trial := range 5 {
		rewrite(t, p.image(), 2, uint64(31+trial))
		p.primary.do("resync", vm)
		eventually(t, "the layer is committed", func() bool {
			for _, layer := range replica.status(t.Context()).GetDisks()[0].GetLayers() {
				if layer.GetState() >= vmreplicav1.Layer_STATE_COMMITTED {
					return true
				}
			}
			return p.primary.services().newest(t.Context()).GetState() == vmreplicav1.ResyncState_RESYNC_STATE_DONE
		})
		p.replica.kill()
		found := p.checkLayers()
		p.replica.start()
		p.ends(p.primary.services())
		equal(t, p.image(), p.base())
		if found > 0 {
			return
		}
	}
	t.Error("no kill came between the commit and the end of the merge")
}

func TestStoppedAgentsGoOn(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(64*mib, 40)
	p.limit("16MiB/s")
	for i, a := range []*agent{p.replica, p.primary} {
		rewrite(t, p.image(), 1, uint64(41+i))
		p.primary.do("resync", vm)
		s := p.primary.services()
		eventually(t, "something was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 4*mib })
		a.signal(syscall.SIGSTOP)
		waiting := exec.Command("sleep", "3")
		if err := waiting.Run(); err != nil {
			t.Fatal(err)
		}
		a.signal(syscall.SIGCONT)
		if done := p.ends(s); done.GetRestarts() != 0 {
			t.Errorf("%s stopped for a while: %v", a.program, done)
		}
		equal(t, p.image(), p.base())
	}
}

func TestKillSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(64*mib, 50)
	p.limit("16MiB/s")
	rewrite(t, p.image(), 1, 51)
	p.primary.do("resync", vm)
	s := p.primary.services()
	eventually(t, "something was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 4*mib })
	p.replica.kill()
	eventually(t, "the primary backs off", func() bool {
		return s.status(t.Context()).GetActivity() == vmreplicav1.Activity_ACTIVITY_BACKING_OFF
	})
	status := s.status(t.Context())
	if next := status.GetNextAttemptTime(); status.GetActivity() == vmreplicav1.Activity_ACTIVITY_BACKING_OFF &&
		(next == nil || time.Until(next.AsTime()) > time.Minute) {
		t.Errorf("the next attempt is at %v", next.AsTime())
	}
	p.primary.try("get", vm).wants(t, 0, "Resynchronizing", "Warning", p.replica.address)
	p.replica.start()
	p.ends(s)
	equal(t, p.image(), p.base())
	said := p.primary.do("events", vm)
	for _, event := range []string{"32315", "60010"} {
		if !strings.Contains(said, event) {
			t.Errorf("no event %s:\n%s", event, said)
		}
	}
	if n := s.newest(t.Context()).GetReconnects(); n == 0 {
		t.Error("the resync counts no lost connection")
	}
}
