package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// TestTwoMachinesWhileTheReplicaIsAway has two machines of three disks write while their replica is away: nothing grows
// with what they write, no resync is needed, and everything is sent when it is back.
func TestTwoMachinesWhileTheReplicaIsAway(t *testing.T) {
	t.Parallel()
	const size, piece = 128 * mib, 48 * mib
	p := newPair(t)
	p.replica.do("authorize", primaryName)
	machines := map[string][]string{}
	for _, name := range []string{"web01", "db01"} {
		arguments := []string{"enable", name, "--replica", p.reached, "--interval", "5s", "--hrl-limit", "none", "--auto-resync", "off"}
		for _, disk := range []string{"root", "data", "log"} {
			image := filepath.Join(p.images, name+"-"+disk)
			fill(t, image, size, uint64(len(machines)))
			machines[name] = append(machines[name], name+"-"+disk)
			arguments = append(arguments, "--disk", image)
		}
		p.primary.do(arguments...)
		p.primary.do("start-initial", name, "--wait")
	}
	write := func(pattern byte) {
		for name, disks := range machines {
			for _, disk := range disks {
				p.write(name, disk, int64(pattern)*mib, piece, pattern)
			}
		}
	}
	status := func(name string) *vmreplicav1.ReplicationStatus {
		return decode(t, p.primary.do("get", name, "-o", "json"), &vmreplicav1.Replication{}).GetStatus()
	}
	sent := func() {
		for name := range machines {
			eventually(t, name+" is sent", func() bool { return status(name).GetPendingBytes() == 0 })
		}
	}
	write(1)
	sent()
	write(2)
	p.replica.kill()
	newest := map[string]string{"web01": status("web01").GetResync(), "db01": status("db01").GetResync()}
	before, stored := p.primary.resident(), p.primary.stored()
	for pattern := byte(3); pattern < 9; pattern++ {
		write(pattern)
	}
	if grown := p.primary.resident() - before; grown > 32*mib {
		t.Errorf("the primary's memory has grown by %d bytes while %d were written", grown, 6*6*piece)
	}
	if grown := p.primary.stored() - stored; grown > mib {
		t.Errorf("the primary's state has grown by %d bytes", grown)
	}
	for name, disks := range machines {
		eventually(t, "the outage is told", func() bool { return p.primary.try("check", name).code == 1 })
		p.primary.try("get", name).wants(t, 0, "Replicating", "Warning")
		if pending := status(name).GetPendingBytes(); pending < int64(len(disks))*piece {
			t.Errorf("%d bytes of %s are pending", pending, name)
		}
	}
	p.replica.start()
	sent()
	for name, disks := range machines {
		if status := status(name); status.GetResync() != newest[name] || status.GetStatistics().GetNetworkFailures() == 0 {
			t.Errorf("%s after the outage: %v", name, status)
		}
		dir := filepath.Join(p.dir, "export-"+name)
		mustMake(t, dir)
		p.replica.do("export", name, dir)
		for _, disk := range disks {
			equal(t, filepath.Join(p.images, disk), filepath.Join(dir, disk+".raw"))
		}
	}
}

// write writes a pattern through a disk's export, as a machine does that comes and goes.
func (p *pair) write(name, disk string, off, n int64, pattern byte) {
	p.t.Helper()
	said := tool(p.t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P %d %d %d", pattern, off, n), p.uri(name, disk))
	if !strings.Contains(said, "wrote") {
		p.t.Fatal(said)
	}
}

// uri is a disk's export.
func (p *pair) uri(name, disk string) string {
	return fmt.Sprintf("nbd+unix:///%s/%s?socket=%s", name, disk, filepath.Join(p.dir, "agent-primary", "nbd.sock"))
}

// resident is the agent's memory, in bytes.
func (a *agent) resident() (bytes int64) {
	a.t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.process.Process.Pid))
	if err != nil {
		a.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(content), "VmRSS:")
	if _, err := fmt.Sscanf(rest, "%d kB", &bytes); err != nil {
		a.t.Fatal(err)
	}
	return bytes << 10
}

// stored is the space of what is in the agent's state directory, in bytes.
func (a *agent) stored() (bytes int64) {
	a.t.Helper()
	err := filepath.WalkDir(filepath.Dir(a.log)+"/"+a.program, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return bytes
}

// TestAFailoverToAPoint reads an older point and fails over to it while the primary still runs: the replica's disk is what
// the primary's was then, and the primary is refused, also when it is started anew.
func TestAFailoverToAPoint(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32*mib, "", "root.img")
	m.primary.do("start-initial", vm, "--wait")
	kept := filepath.Join(m.dir, "kept")
	copyFile(t, m.image(), kept)
	m.write("root.img", 4*mib, mib, 1)
	m.sent()
	points := decode(t, m.replica.do("get", vm, "-o", "json"), &vmreplicav1.Replication{}).GetStatus().GetRecoveryPoints()
	if len(points) != 2 || points[0].GetLatest() || !points[1].GetLatest() {
		t.Fatalf("the recovery points are %v", points)
	}
	point := points[0].GetId()
	older := filepath.Join(m.dir, "older")
	m.replica.do("export", vm, older, "--point", point[:8])
	equal(t, kept, older)
	m.replica.try("failover", vm, "--point", point[:8], "--dry-run").wants(t, 0, point[:12])
	m.write("root.img", 8*mib, mib, 2)
	m.replica.try("failover", vm, "--point", point[:8], "--yes").wants(t, 0, m.base(), "-blockdev")
	equal(t, kept, m.base())
	m.replica.try("get", vm).wants(t, 0, "FailedOver")

	for range 2 {
		m.write("root.img", 12*mib, mib, 3) // the machine is served
		eventually(t, "the primary is refused", func() bool {
			return m.status().GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_FAILED_OVER
		})
		m.primary.try("check", vm).wants(t, 2)
		if r := m.primary.try("resync", vm, "--force", "--wait"); r.code == 0 {
			t.Fatalf("a primary that was failed over from resynchronizes:\n%s", r.out)
		}
		m.killPrimary()
	}
	equal(t, kept, m.base())
}

// TestAHostLostInAResync loses the primary's host, and the replica with it, when a running machine's resync has compared
// everything: the pass begins again, and what the replica has received is not sent once more.
func TestAHostLostInAResync(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 96*mib, "", "root.img")
	m.primary.do("start-initial", vm, "--wait")
	m.primary.do("suspend", vm)
	content := filepath.Join(m.dir, "content")
	fill(t, content, 48*mib, 11)
	tool(t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -s %s 32m 48m", content), m.uri(vm, "root.img"))
	m.primary.kill()
	m.misbehave("resync-catching-up")
	m.primary.start()
	stay := m.attach()
	m.primary.do("resume", vm, "--resynchronize")
	m.primary.awaitKilled()
	stay()
	m.killReplica()
	m.boot()
	m.misbehave("")
	m.primary.start()
	stay = m.attach()
	last := m.ends(m.primary.services())
	stay()
	disk := last.GetDisks()[0]
	if last.GetRestarts() == 0 || disk.GetBlocksCompared() != 96*mib>>16 || disk.GetBytesDiffering() > mib {
		t.Errorf("%d restarts; in the last pass %d blocks were compared and %d bytes differed",
			last.GetRestarts(), disk.GetBlocksCompared(), disk.GetBytesDiffering())
	}
	m.isInStep()
}

// attach has a client stay at the first disk until it is told to go.
func (m *machine) attach() (leave func()) {
	m.t.Helper()
	client := exec.Command("qemu-io", "-f", "raw", m.uri(vm, m.disks[0]))
	client.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := client.StdinPipe()
	m.must(err)
	m.must(client.Start())
	eventually(m.t, "the machine is attached", func() bool { return m.status().GetAttached() })
	return func() {
		_ = in.Close()
		_ = client.Wait() // which is an error where its server was killed
	}
}
