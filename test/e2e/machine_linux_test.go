package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/test/guest"
)

// machine is a VM that runs: its disks are attached through the primary of a pair, which is built for faults and says
// by the fault "oracle" what each cut holds.
type machine struct {
	*pair
	disks []string
}

// withFaults are the agents as they are built for faults.
var withFaults = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(filepath.Dir(built), "faults")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "faults", "-o", bin+"/", "./agent-primary", "./agent-replica")
	build.Dir = "../.."
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", build, err, output)
	}
	return bin, nil
})

// interval is that of the machines: the shortest there is.
const interval = 5 * time.Second

// newMachine makes a pair and images of size bytes with a filesystem each, and has them replicated; nothing is copied yet.
func newMachine(t *testing.T, size int64, faults string, disks ...string) *machine {
	t.Helper()
	bin, err := withFaults()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{disks: disks}
	m.pair = newPair(t, func(p *pair) {
		m.pair = p
		mustMake(t, m.oracle())
		p.primary.bin, p.replica.bin = bin, bin
		m.misbehave(faults)
	})
	arguments := []string{"enable", vm, "--format", "raw", "--replica", m.reached, "--interval", interval.String(),
		"--recovery-points", "2", "--hrl-limit", "none", "--auto-resync", "off"}
	for _, disk := range disks {
		if err := os.WriteFile(m.imageOf(disk), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(m.imageOf(disk), size); err != nil {
			t.Fatal(err)
		}
		guest.Format(t, m.imageOf(disk))
		arguments = append(arguments, "--disk", m.imageOf(disk))
	}
	m.replica.do("authorize", primaryName)
	m.primary.do(arguments...)
	return m
}

func (m *machine) imageOf(disk string) string { return filepath.Join(m.images, disk) }
func (m *machine) oracle() string             { return filepath.Join(m.dir, "oracle") }

// misbehave names the faults of the primary, from its next start on.
func (m *machine) misbehave(faults string) {
	m.primary.env = []string{"VMREPLICA_FAULTS=oracle," + faults, "VMREPLICA_ORACLE=" + m.oracle()}
}

// lines are those that attach-info prints.
func (m *machine) lines() guest.Lines {
	m.t.Helper()
	return guest.Typed(m.t, m.primary.do("attach-info", vm))
}

// exported are the disks of the lines.
func (m *machine) exported() []guest.Disk {
	m.t.Helper()
	disks := m.lines().Disks(m.t)
	if len(disks) != len(m.disks) {
		m.t.Fatalf("attach-info has the disks %v, not %v", disks, m.disks)
	}
	return disks
}

// status is the VM as the primary shows it.
func (m *machine) status() *vmreplicav1.ReplicationStatus {
	return m.primary.services().status(m.t.Context())
}

// cycled waits until a cycle has committed whose cut is later than now, and answers its instant.
func (m *machine) cycled() time.Time {
	m.t.Helper()
	began, cut := time.Now(), time.Time{}
	eventually(m.t, "a cycle of a later cut", func() bool {
		cut = m.status().GetLastCycle().GetCutTime().AsTime()
		return cut.After(began)
	})
	return cut
}

// sent waits until the replica has everything; the machine has stopped writing.
func (m *machine) sent() {
	m.t.Helper()
	eventually(m.t, "everything is sent", func() bool { return m.status() != nil && m.status().GetPendingBytes() == 0 })
}

// export reads the replica's newest content into files, and answers which cut it is.
func (m *machine) export() (dir, cut string) {
	m.t.Helper()
	dir = filepath.Join(m.dir, "export")
	if err := os.RemoveAll(dir); err != nil {
		m.t.Fatal(err)
	}
	mustMake(m.t, dir)
	var written struct {
		Disks []struct{ RecoveryPoint string }
	}
	if err := json.Unmarshal([]byte(m.replica.do("export", vm, dir, "-o", "json")), &written); err != nil {
		m.t.Fatal(err)
	}
	if len(written.Disks) != len(m.disks) {
		m.t.Fatalf("the export has %d disks", len(written.Disks))
	}
	return dir, written.Disks[0].RecoveryPoint
}

// exact says whether the replica's newest content is, bit for bit, what the primary was at that cut.
func (m *machine) exact() bool {
	m.t.Helper()
	dir, cut := m.export()
	want, err := os.ReadFile(filepath.Join(m.oracle(), cut))
	if err != nil {
		m.t.Fatal(err)
	}
	var found strings.Builder
	for _, disk := range m.disks {
		fmt.Fprintf(&found, "%s %x\n", disk, hash(m.t, filepath.Join(dir, disk+".raw")))
	}
	return found.String() == string(want)
}

// unmarked compares the first disk, whose primary is killed, with its replica: how many blocks differ, and how many of
// those the HRL does not have.
func (m *machine) unmarked() (differing, clean int) {
	m.t.Helper()
	exported, _ := m.export()
	disk := m.disks[0]
	return guest.Unmarked(m.t, filepath.Join(m.dir, "agent-primary", "hrl", vm+"@"+disk+".hrl"),
		m.imageOf(disk), filepath.Join(exported, disk+".raw"))
}

// noResync fails the test when the VM needs one, or has had another than the newest of before.
func (m *machine) noResync(newest string) {
	m.t.Helper()
	eventually(m.t, "the primary shows the VM", func() bool { return m.status() != nil })
	status := m.status()
	if status.GetState() != vmreplicav1.ReplicationState_REPLICATION_STATE_REPLICATING || status.GetResync() != newest {
		m.t.Fatalf("%s (%s: %s), the newest resync is %s and was %s",
			status.GetState(), status.GetResyncCause(), status.GetResyncEvidence(), status.GetResync(), newest)
	}
}

// write writes a pattern to a disk.
func (m *machine) write(disk string, off, n int64, pattern byte) {
	m.t.Helper()
	m.pair.write(vm, disk, off, n, pattern)
}

// awaitWrite waits until something is written to the disk's image.
func (m *machine) awaitWrite(disk string) {
	m.t.Helper()
	written := func() time.Time {
		info, err := os.Stat(m.imageOf(disk))
		if err != nil {
			m.t.Fatal(err)
		}
		return info.ModTime()
	}
	before := written()
	eventually(m.t, "the machine writes", func() bool { return written() != before })
}
