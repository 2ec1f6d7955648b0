package e2e_test

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/test/guest"
)

const guestDisk = 96 * mib

// TestAGuestIsReplicatedWhileItRuns has a guest write, from the first copy on, through cycles, resyncs and killed agents:
// what the replica has is always one of the cuts, bit for bit, and in the end a guest lives on it.
func TestAGuestIsReplicatedWhileItRuns(t *testing.T) {
	t.Parallel()
	m := newMachine(t, guestDisk, "", "root.img", "data.img")
	g := guest.Start(t, guest.Write, m.lines())
	g.AwaitRows(1)
	m.primary.do("start-initial", vm, "--wait")
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"the first copy", func() {}},
		{"a killed primary", m.killPrimary},
		{"a killed replica", m.killReplica},
		{"a forced resync", func() { m.primary.do("resync", vm, "--force", "--wait") }},
		{"a forced resync that was killed as it began", func() { m.killedResync("resync-begun") }},
		{"a forced resync that was killed before it caught up", func() { m.killedResync("resync-catching-up") }},
		{"a forced resync whose commit is in doubt", func() { m.killedResync("resync-before-commit") }},
		{"a suspension", func() {
			m.primary.do("suspend", vm)
			g.AwaitRows(2)
			m.primary.do("resume", vm)
		}},
		{"a suspension that a resync ends", func() {
			m.primary.do("suspend", vm)
			m.primary.try("resume", vm, "--resynchronize", "--wait").wants(t, 0, "Done")
		}},
	} {
		step.do()
		m.cycled()
		if !m.exact() {
			t.Fatalf("after %s the replica is not what the primary was", step.what)
		}
	}
	g.AwaitRows(1)
	shipped := m.cycled()
	committed := g.CommittedBefore(shipped)
	g.Kill()
	if said := g.Said(); strings.Contains(said, "I/O error") {
		t.Errorf("the guest met an error:\n%s", said)
	}
	said := m.replica.do("failover", vm, "--yes")
	lines := guest.Typed(t, said[max(0, strings.Index(said, "-blockdev")):])
	if fault := guest.Examine(t, lines).Fault(committed); committed == 0 || fault != "" {
		t.Fatalf("of %d rows: %s", committed, fault)
	}
}

func (m *machine) killPrimary() {
	m.primary.kill()
	m.primary.start()
}

func (m *machine) killReplica() {
	m.replica.kill()
	m.replica.start()
}

// killedResync forces a resync, kills the primary at a crash point of it, and then the replica while it goes on.
func (m *machine) killedResync(crash string) {
	m.t.Helper()
	before := m.status().GetResync()
	m.primary.kill()
	m.misbehave(crash)
	m.primary.start()
	eventually(m.t, "the machine is attached", func() bool { return m.status().GetAttached() })
	m.primary.try("resync", vm, "--force") // whose answer may be lost
	m.primary.awaitKilled()
	m.misbehave("")
	m.primary.start()
	m.killReplica()
	eventually(m.t, "the resync is done", func() bool {
		newest := m.primary.services().newest(m.t.Context())
		return newest.GetId() != before && newest.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_DONE
	})
}

// crashes are where the primary is killed, beside anywhere.
var crashes = []string{"", "", "", "", "delta-begun", "delta-before-commit", "delta-committed", "delta-acked"}

// killedAt has the primary killed where it is at a crash point, or anywhere where that is empty.
func (m *machine) killedAt(crash string) {
	m.t.Helper()
	if crash == "" {
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		m.primary.kill()
		return
	}
	m.primary.kill()
	m.misbehave(crash)
	_ = m.primary.tryStart() // which may end at the crash point before it serves
	m.primary.awaitKilled()
	m.misbehave("")
}

// awaitKilled waits until the agent has come to its crash point.
func (a *agent) awaitKilled() {
	a.t.Helper()
	select {
	case <-a.ended:
		a.process = nil
	case <-time.After(bound):
		a.t.Fatalf("%s does not come to %v", a.program, a.env)
	}
}

// TestAKilledPrimaryUnderLoad kills it at any moment: the load meets no error, every block that the replica does not have
// is marked, no resync is needed, and in the end the replica is the disk.
func TestAKilledPrimaryUnderLoad(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32*mib, "", "root.img")
	load := guest.StartLoad(t, m.exported()[0])
	m.primary.do("start-initial", vm, "--wait")
	newest := m.status().GetResync()
	behind := 0
	for i := range 50 {
		crash := crashes[i%len(crashes)]
		m.awaitWrite("root.img")
		m.killedAt(crash)
		differing, clean := m.unmarked()
		if clean > 0 {
			t.Fatalf("kill %d, at %q: %d of %d blocks changed and are clean", i, crash, clean, differing)
		}
		if differing > 0 {
			behind++
		}
		m.primary.start()
		m.noResync(newest)
	}
	load.End()
	m.sent()
	exported, _ := m.export()
	equal(t, m.image(), filepath.Join(exported, "root.img.raw"))
	m.noResync(newest)
	if behind < 25 {
		t.Errorf("only %d kills found a replica that was behind", behind)
	}
}
