package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// log is the HRL of the first disk.
func (m *machine) log() string {
	return filepath.Join(m.dir, "agent-primary", "hrl", vm+"@"+m.disks[0]+".hrl")
}

// required is what the operator reads first.
const required = "Resynchronization is required for the virtual machine web01"

// losses are ways to lose the marks, or what they follow, of a machine in step. Both agents run again afterwards; cause is
// what must be found, empty where nothing is lost.
var losses = []struct {
	name   string
	happen func(m *machine)
	cause  string
}{
	{"another boot after a kill", func(m *machine) { m.primary.kill(); m.boot(); m.primary.start() }, "HrlNotClosedCleanly"},
	{"another boot in order", func(m *machine) { m.primary.stop(); m.boot(); m.primary.start() }, ""},
	{"a log cut short", func(m *machine) { m.primary.away(func() { m.must(os.Truncate(m.log(), 8192)) }) }, "TrackingLost"},
	{"a damaged header", func(m *machine) { m.primary.away(func() { m.flip(m.log(), 100, 4196) }) }, "TrackingLost"},
	{"one damaged header", func(m *machine) { m.primary.away(func() { m.flip(m.log(), 100) }) }, ""},
	{"a flipped mark", func(m *machine) { m.primary.away(m.flipMarks) }, "TrackingLost"},
	{"no log", func(m *machine) { m.primary.away(func() { m.must(os.Remove(m.log())) }) }, "TrackingLost"},
	{"a log cut short in use", func(m *machine) { m.must(os.Truncate(m.log(), 0)) }, "HrlWriteFailed"},
	{"a log of before it was closed", (*machine).putOpenLogBack, "Reverted"},
	{"an older log", func(m *machine) { m.putBack(m.primary, m.log()) }, "Reverted"},
	{"an edited image", func(m *machine) { m.primary.away(func() { m.edit(m.imageOf(m.disks[0]), "raw") }) }, "ImageModified"},
	{"an older image", func(m *machine) { m.putBack(m.primary, m.imageOf(m.disks[0])) }, "Reverted"},
	{"an edited base", func(m *machine) { m.replica.away(func() { m.edit(m.base(), "raw") }) }, "ReplicaRecordMismatch"},
	{"an edited layer", func(m *machine) { layer := m.layer(); m.replica.away(func() { m.edit(layer, "qcow2") }) }, "ReplicaRecordMismatch"},
	{"an older layer", func(m *machine) { m.putBack(m.replica, m.layer()) }, "ReplicaRecordMismatch"},
	{"an older replica", func(m *machine) { m.putBack(m.replica, m.storage, filepath.Join(m.dir, "agent-replica")) }, "ReplicaRecordMismatch"},
}

// TestEveryLossIsNoticed lets each happen between two writes of a machine: the cause is found and told, the machine is
// served all the while, and a resync puts the replica in step.
func TestEveryLossIsNoticed(t *testing.T) {
	t.Parallel()
	for _, l := range losses {
		t.Run(strings.ReplaceAll(l.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			m := inStep(t)
			newest := m.status().GetResync()
			l.happen(m)
			m.write("root.img", 8*mib, 4096, 2)
			if l.cause == "" {
				m.sent()
				m.noResync(newest)
			} else {
				m.awaitCause(l.cause)
				m.primary.try("resync", vm, "--force", "--wait").wants(t, 0, "Done")
			}
			m.isInStep()
		})
	}
}

// TestALogWithoutRoom has no room for the log of a machine: it is served all the same, and cannot be replicated until
// there is room.
func TestALogWithoutRoom(t *testing.T) {
	t.Parallel()
	m := inStep(t)
	logs := filepath.Dir(m.log())
	m.primary.away(func() {
		tool(t, "mount", "-t", "tmpfs", "-o", "size=4k", "none", logs)
		t.Cleanup(func() { _ = syscall.Unmount(logs, syscall.MNT_DETACH) }) // which fails when the test has done it
	})
	m.write("root.img", 8*mib, 4096, 2)
	m.awaitCause("HrlWriteFailed")
	m.primary.try("resync", vm, "--force", "--wait").wants(t, 7, "cannot be written", "has room")
	m.primary.away(func() { m.must(syscall.Unmount(logs, 0)) })
	m.write("root.img", 16*mib, 4096, 2)
	m.primary.try("resync", vm, "--force", "--wait").wants(t, 0, "Done")
	m.isInStep()
}

// TestLogsThatWereNotThereForAWhile has both logs of a machine away between two kills, and the machine writes meanwhile:
// what they say when they are back counts for nothing, on the disk that was named and on the other.
func TestLogsThatWereNotThereForAWhile(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 32*mib, "", "root.img", "data.img")
	m.primary.do("start-initial", vm, "--wait")
	write := func(at int64, pattern byte) {
		for _, disk := range m.disks {
			m.write(disk, at, mib, pattern)
		}
	}
	write(4*mib, 1)
	m.sent()
	leave := m.attach()
	m.primary.kill()
	leave()
	logs := filepath.Dir(m.log())
	tool(t, "mount", "-t", "tmpfs", "-o", "size=4k", "none", logs)
	t.Cleanup(func() { _ = syscall.Unmount(logs, syscall.MNT_DETACH) }) // which fails when the test has done it
	m.primary.start()
	leave = m.attach()
	write(8*mib, 2)
	m.awaitCause("HrlWriteFailed")
	m.primary.kill()
	leave()
	m.must(syscall.Unmount(logs, 0))
	m.primary.start()
	write(12*mib, 3)
	m.primary.try("resync", vm, "--wait").wants(t, 0, "Done")
	m.sent()
	exported, _ := m.export()
	for _, disk := range m.disks {
		equal(t, m.imageOf(disk), filepath.Join(exported, disk+".raw"))
	}
}

// inStep is a machine that has written, and whose replica has it.
func inStep(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t, 32*mib, "", "root.img")
	m.primary.do("start-initial", vm, "--wait")
	m.write("root.img", 4*mib, mib, 1)
	m.sent()
	return m
}

// isInStep has the machine write once more, and compares.
func (m *machine) isInStep() {
	m.t.Helper()
	m.write("root.img", 12*mib, 4096, 3)
	m.sent()
	if !m.exact() {
		m.t.Error("the replica is not what the primary was")
	}
	exported, _ := m.export()
	equal(m.t, m.imageOf(m.disks[0]), filepath.Join(exported, m.disks[0]+".raw"))
}

// awaitCause waits until the cause is seen, and checks what the operator reads then.
func (m *machine) awaitCause(cause string) {
	m.t.Helper()
	eventually(m.t, "a resync is required", func() bool {
		return m.status().GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE
	})
	m.primary.try("describe", vm).wants(m.t, 0, cause, "Critical")
	if said := m.primary.do("events", vm, "-o", "json"); !strings.Contains(said, required) || !strings.Contains(said, "Resume replication to start resynchronization.") {
		m.t.Errorf("no event says that a resync is required:\n%s", said)
	}
	if evidence := m.status().GetResyncEvidence(); evidence == "" {
		m.t.Error("there is no evidence")
	} else {
		m.t.Logf("%s: %s", cause, evidence)
	}
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// away does something while the agent is stopped.
func (a *agent) away(do func()) {
	a.t.Helper()
	a.stop()
	do()
	a.start()
}

// boot has the primary see another boot from its next start on.
func (m *machine) boot() {
	m.t.Helper()
	id := filepath.Join(m.dir, "boot_id")
	m.must(os.WriteFile(id, []byte("8d4f3a52-6f0e-4c1b-9a57-1f0c8a2b7e61\n"), 0o600))
	m.primary.within = []string{"unshare", "--mount", "sh", "-c",
		`mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, id}
}

// flip changes a bit at each of some places of a file.
func (m *machine) flip(path string, places ...int64) {
	m.t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	m.must(err)
	defer file.Close()
	for _, at := range places {
		p := make([]byte, 1)
		_, err = file.ReadAt(p, at)
		m.must(err)
		p[0] ^= 0x10
		_, err = file.WriteAt(p, at)
		m.must(err)
	}
}

// flipMarks changes a mark in every page of the log's maps.
func (m *machine) flipMarks() {
	m.t.Helper()
	info, err := os.Stat(m.log())
	m.must(err)
	for page := int64(2); page < info.Size()/4096; page++ {
		m.flip(m.log(), page*4096)
	}
}

// edit is another program that writes to an image.
func (m *machine) edit(path, format string) {
	m.t.Helper()
	tool(m.t, "qemu-io", "-f", format, "-c", "write -P 9 20m 64k", path)
}

// layer is the file of the first disk's only differencing disk, which stands on its point: the cycles are merged into it.
func (m *machine) layer() (file string) {
	m.t.Helper()
	eventually(m.t, "the cycle is merged", func() bool {
		found, err := filepath.Glob(m.base() + ".*")
		m.must(err)
		file = found[0]
		return len(found) == 1
	})
	return file
}

// putOpenLogBack has the log be what it was while the agent had it open, before the machine wrote for a while.
func (m *machine) putOpenLogBack() {
	m.t.Helper()
	leave := m.attach()
	kept, err := os.ReadFile(m.log())
	m.must(err)
	m.primary.do("suspend", vm)
	m.write("root.img", 24*mib, mib, 4)
	leave()
	m.primary.away(func() { m.must(os.WriteFile(m.log(), kept, 0o600)) })
	m.primary.do("resume", vm)
}

// putBack has the files be what they were before the machine wrote for a while.
func (m *machine) putBack(a *agent, paths ...string) {
	m.t.Helper()
	kept := filepath.Join(m.dir, "kept")
	copied := func(i int) string { return filepath.Join(kept, fmt.Sprint(i)) }
	a.away(func() {
		mustMake(m.t, kept)
		for i, path := range paths {
			tool(m.t, "cp", "--archive", path, copied(i))
		}
	})
	m.write("root.img", 24*mib, mib, 4)
	m.sent()
	m.layer() // while a merge has not ended the replica cannot tell its own writes from others
	a.away(func() {
		for i, path := range paths {
			m.must(os.RemoveAll(path))
			tool(m.t, "cp", "--archive", copied(i), path)
		}
	})
}
