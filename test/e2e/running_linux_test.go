package e2e_test

import (
	"path/filepath"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/test/guest"
)

// TestLifeOfARunningMachine is a machine of two disks from enabling to the day its replica is needed, with the commands of
// an operator and the agents as they are delivered. It writes nearly all the while.
func TestLifeOfARunningMachine(t *testing.T) {
	t.Parallel()
	m := &machine{pair: newPair(t), disks: []string{"root.img", "data.img"}}
	arguments := []string{"enable", vm, "--format", "raw", "--replica", m.reached, "--interval", interval.String(),
		"--recovery-points", "4", "--hrl-limit", "none", "--auto-resync", "off"}
	for i, disk := range m.disks {
		fill(t, m.imageOf(disk), 48*mib, uint64(70+i))
		arguments = append(arguments, "--disk", m.imageOf(disk))
	}
	m.replica.do("authorize", primaryName)
	m.primary.do(arguments...)
	load := guest.StartLoad(t, m.exported()[0])
	m.awaitWrite("root.img")
	m.primary.try("start-initial", vm, "--wait").wants(t, 0, "Done", "proven equal")
	m.write("data.img", 4*mib, mib, 1)
	m.cycled()
	m.isShown()

	m.suspends()
	m.primary.try("resync", vm, "--force", "--wait").wants(t, 0, "Done", "Rounds")
	m.cycled()
	m.changesItsInterval()
	load.End()

	tool(t, "qemu-io", "-f", "raw", "-d", "unmap", "-c", "discard 5m 100k", "-c", "write -z 6m 300k", "-c", "write -zu 9m 1m",
		m.uri(vm, "data.img"))
	m.sent()
	m.isExported(m.images)
	m.isFailedOverToAPoint()
}

// isShown looks at the machine with every command that shows it.
func (m *machine) isShown() {
	m.t.Helper()
	m.primary.try("get", vm).wants(m.t, 0, "Replicating")
	m.primary.try("describe", vm).wants(m.t, 0, "Attached              yes", "Last cycle", "Next cycle", "HRL ", "Pending")
	if r := m.primary.try("check", vm); r.code > 1 { // a busy machine may miss a cycle, which is a warning
		m.t.Errorf("check answers %d: %s", r.code, r.out)
	}
	m.primary.try("events", vm).wants(m.t, 0, "The writes to 2 disks are tracked from now on")
	measured := decode(m.t, m.primary.do("measure", vm, "-o", "json"), &vmreplicav1.Replication{}).GetStatus().GetStatistics()
	if measured.GetCyclesCompleted() == 0 || measured.GetCyclesFailed() > 0 {
		m.t.Errorf("measured %v", measured)
	}
	m.replica.try("recovery-points", vm).wants(m.t, 0, "latest")
	m.replica.try("get", vm).wants(m.t, 0, "Replicating", "Normal")
}

// suspends has the machine write while it is suspended; afterwards everything is sent, and nothing was compared.
func (m *machine) suspends() {
	m.t.Helper()
	newest := m.status().GetResync()
	m.primary.do("suspend", vm)
	before := m.status().GetPendingBytes()
	m.write("data.img", 16*mib, 4*mib, 2)
	m.primary.try("get", vm).wants(m.t, 0, "Suspended", "Warning")
	if pending := m.status().GetPendingBytes(); pending < before+4*mib {
		m.t.Errorf("%d bytes were pending, and are %d after 4 MiB were written", before, pending)
	}
	m.primary.do("resume", vm)
	m.cycled()
	m.noResync(newest)
}

// changesItsInterval sets another interval, which holds at once.
func (m *machine) changesItsInterval() {
	m.t.Helper()
	m.primary.do("set", vm, "--interval", "24h")
	eventually(m.t, "the next cycle is in more than an interval of before", func() bool {
		return time.Until(m.status().GetNextCycleTime().AsTime()) > interval
	})
	m.primary.do("set", vm, "--interval", interval.String())
	m.cycled()
}

// isExported compares the replica's newest content, or a point, with the files of a directory.
func (m *machine) isExported(dir string, point ...string) {
	m.t.Helper()
	exported := filepath.Join(m.dir, "exported")
	mustMake(m.t, exported)
	m.replica.do(append([]string{"export", vm, exported, "--force"}, point...)...)
	for _, disk := range m.disks {
		equal(m.t, filepath.Join(dir, disk), filepath.Join(exported, disk+".raw"))
	}
}

// isFailedOverToAPoint has the machine write past a point; the point is read, and failed over to while the primary runs,
// which is refused from then on.
func (m *machine) isFailedOverToAPoint() {
	m.t.Helper()
	m.primary.do("suspend", vm)
	m.write("root.img", 0, 64<<10, 3)
	m.primary.try("resume", vm, "--resynchronize", "--wait").wants(m.t, 0, "Done")
	kept := filepath.Join(m.dir, "kept")
	for _, disk := range m.disks {
		copyFile(m.t, m.imageOf(disk), filepath.Join(kept, disk))
	}
	var points []*vmreplicav1.RecoveryPoint
	eventually(m.t, "the point of the resync", func() bool {
		points = m.replica.services().status(m.t.Context()).GetRecoveryPoints()
		return len(points) == 2 && points[0].GetId() == m.status().GetCut()
	})
	m.write("data.img", 8*mib, 2*mib, 4)
	m.sent()
	m.isExported(m.images)
	m.isExported(kept, "--point", points[0].GetId()[:8])
	m.replica.try("failover", vm, "--point", points[0].GetId()[:8], "--yes").wants(m.t, 0, m.base(), "-blockdev")
	for _, disk := range m.disks {
		equal(m.t, filepath.Join(kept, disk), filepath.Join(filepath.Dir(m.base()), disk))
	}
	for range 2 {
		m.write("data.img", 1*mib, mib, 5)
		eventually(m.t, "the primary is refused", func() bool {
			return m.status().GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER
		})
		m.primary.try("check", vm).wants(m.t, 2)
		m.primary.try("resync", vm, "--force", "--wait").wants(m.t, 4, "the state is FailedOver")
		m.primary.stop()
		m.primary.start()
	}
	for _, disk := range m.disks {
		equal(m.t, filepath.Join(kept, disk), filepath.Join(filepath.Dir(m.base()), disk))
	}
}
