package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// enabling is an attempt to enable the VM with one disk.
func (p *pair) enabling(disk string, more ...string) result {
	p.t.Helper()
	return p.primary.try(append([]string{"enable", vm, "--disk", disk, "--replica", p.reached}, more...)...)
}

func TestEnableRefusals(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), 8*mib, 100)
	p.enabling(p.image()).wants(t, 6, "NOT_AUTHORIZED", "authorize")
	p.primary.try("get", vm).wants(t, 3)
	p.replica.do("authorize", primaryName)
	p.replica.try("authorize", primaryName).wants(t, 4, "ALREADY_EXISTS")

	outside := filepath.Join(p.dir, "outside.img")
	fill(t, outside, 8*mib, 101)
	p.enabling(outside).wants(t, 6, "PATH_OUTSIDE", outside, p.images)
	for name, target := range map[string]string{"absolute.img": outside, "relative.img": "../outside.img"} {
		link := filepath.Join(p.images, name)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		p.enabling(link).wants(t, 6, "PATH_OUTSIDE", link)
	}
	p.enabling(filepath.Join(p.images, "..", "outside.img")).wants(t, 6, "PATH_OUTSIDE")
	p.enabling("/etc/passwd").wants(t, 6, "PATH_OUTSIDE")
	missing := filepath.Join(p.images, "missing.img")
	p.enabling(missing).wants(t, 3, "IMAGE_MISSING", missing)
	directory := filepath.Join(p.images, "directory")
	mustMake(t, directory)
	p.enabling(directory).wants(t, 4, "IMAGE_UNREADABLE", directory)
	odd := filepath.Join(p.images, "odd.img")
	fill(t, odd, mib+1, 102)
	if r := p.enabling(odd); r.code == 0 {
		t.Errorf("an image of %d bytes was taken", mib+1)
	} else {
		r.wants(t, r.code, odd, fmt.Sprint(mib+1))
	}

	p.enabling(p.image(), "--use-existing").wants(t, 4, "BASE_MISSING", p.base())
	mustMake(t, filepath.Dir(p.base()))
	fill(t, p.base(), 16*mib, 103)
	before := hash(t, p.base())
	p.enabling(p.image()).wants(t, 4, "BASE_EXISTS", p.base(), "--use-existing")
	p.enabling(p.image(), "--use-existing").wants(t, 4, "SIZE_MISMATCH", fmt.Sprint(8*mib), fmt.Sprint(16*mib))
	if string(before) != string(hash(t, p.base())) {
		t.Error("a refused enabling changed the base")
	}
	nobody := freeAddress(t)
	p.primary.try("enable", vm, "--disk", p.image(), "--replica", nobody).wants(t, 5, nobody)
	p.primary.try("test-connection", nobody).wants(t, 5, nobody)
	p.primary.try("enable", vm, "--disk", p.image(), "--replica", p.primary.address).
		wants(t, 4, "WRONG_ROLE", "wanted is a replica")
}

func TestNamesThatAreNone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), mib, 104)
	p.replica.do("authorize", primaryName)
	for _, name := range []string{"../web01", "a/b", "..", ".hidden", "", "x\nname", strings.Repeat("x", 64)} {
		p.primary.try("enable", name, "--disk", p.image(), "--replica", p.reached).wants(t, 2)
		p.primary.try("resync", name).wants(t, 2)
		if r := p.enabling(p.image() + ",id=" + name); r.code != 2 {
			t.Errorf("the disk name %q: exit code %d: %s", name, r.code, r.err)
		}
	}
	for _, directory := range []string{"../elsewhere", "/etc", "a/../../b", ".."} {
		p.replica.try("authorize", "p2", "--storage", directory).wants(t, 2)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "elsewhere")); !os.IsNotExist(err) {
		t.Error("a directory was made outside the storage")
	}
	p.primary.try("no-such-verb").wants(t, 2)
	p.primary.try("resync", vm, "--at", "yesterday").wants(t, 2)
	p.primary.try("agent", "set", "--bandwidth-limit", "fast").wants(t, 2)
	for _, args := range [][]string{
		{"get"}, {"describe"}, {"resync"}, {"start-initial"}, {"verify"}, {"cancel-resync"}, {"suspend"}, {"resume"}, {"remove"},
	} {
		p.primary.try(append(args, "nobody")...).wants(t, 3, "nobody")
	}
	p.primary.try("check", "nobody").wants(t, 3, "UNKNOWN")
}

func TestImageGrewSinceItWasEnabled(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(32*mib, 105)
	if err := os.Truncate(p.image(), 48*mib); err != nil {
		t.Fatal(err)
	}
	p.primary.try("resync", vm, "--wait").wants(t, 7, "SIZE_MISMATCH", fmt.Sprint(32*mib), fmt.Sprint(48*mib))
	if err := os.Truncate(p.image(), 32*mib); err != nil {
		t.Fatal(err)
	}
	p.primary.try("resync", vm, "--wait").wants(t, 0)
	equal(t, p.image(), p.base())
}

// startProgram starts a program that runs until the test ends.
func startProgram(t *testing.T, name string, args ...string) (stop func()) {
	t.Helper()
	process := exec.Command(name, args...)
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = process.Process.Kill()
			_ = process.Wait()
		}
	}
	t.Cleanup(stop)
	return stop
}

// serves starts qemu-nbd with an image open for writing, as a virtual machine has it.
func (p *pair) serves(image string) (stop func()) {
	p.t.Helper()
	socket := filepath.Join(p.t.TempDir(), "nbd")
	stop = startProgram(p.t, "qemu-nbd", "--format=raw", "--persistent", "--socket="+socket, image)
	eventually(p.t, "qemu-nbd serves", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	return stop
}

func TestImageThatQEMUHasOpen(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), 32*mib, 106)
	p.replica.do("authorize", primaryName)
	stop := p.serves(p.image())
	p.enabling(p.image()).wants(t, 4, "IMAGE_IN_USE", "qemu-nbd")
	stop()
	p.enabling(p.image()).wants(t, 0)
	p.primary.do("start-initial", vm, "--wait")
	stop = p.serves(p.image())
	p.primary.do("resync", vm)
	eventually(t, "the resync waits for the image", func() bool {
		return strings.Contains(p.primary.do("get", vm), "qemu-nbd")
	})
	p.primary.try("get", vm).wants(t, 0, "Warning")
	stop()
	p.ends(p.primary.services())
	equal(t, p.image(), p.base())
	p.primary.try("events", vm).wants(t, 0, "60025", "qemu-nbd")
}

func TestImageChangedBetweenTwoRuns(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(32*mib, 107)
	rewrite(t, p.image(), 20, 108)
	s := p.primary.services()
	eventually(t, "the agent sees that the image changed", func() bool {
		return s.status(t.Context()).GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE
	})
	const sentence = "Resynchronization is required for the virtual machine " + vm + ". Resume replication to start resynchronization."
	p.primary.try("get", vm).wants(t, 0, "WaitingForStartResynchronize", "Critical", sentence)
	p.primary.try("check", vm).wants(t, 2, "CRITICAL")
	p.primary.try("describe", vm).wants(t, 0, p.image(), "ImageModified")
	p.primary.try("events", vm).wants(t, 0, "60013")
	p.primary.try("verify", vm).wants(t, 4, "resync")
	p.primary.do("resume", vm, "--resynchronize")
	eventually(t, "the replica is in step", func() bool {
		return s.status(t.Context()).GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_REPLICATING
	})
	p.ends(s)
	equal(t, p.image(), p.base())
	p.primary.try("check", vm).wants(t, 0, "OK")
}

func TestImageChangesWhileItIsCompared(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(96*mib, 109)
	p.limit("12MiB/s")
	changed := rewrite(t, p.image(), 1, 110)
	p.primary.do("resync", vm)
	s := p.primary.services()
	eventually(t, "half was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 48*mib })
	changed += rewrite(t, p.image(), 100, 111)
	done := p.ends(s)
	if done.GetRestarts() == 0 {
		t.Error("the change was not noticed")
	}
	// The differencing disk stays: what it has of the first pass is not sent again.
	if sent := done.GetDisks()[0].GetBytesDiffering(); sent > changed*block+8*mib {
		t.Errorf("%d bytes were sent for %d differing", sent, changed*block)
	}
	equal(t, p.image(), p.base())
	p.primary.try("events", vm).wants(t, 0, "60009")
}

func TestVerifyFindsWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(32*mib, 112)
	file, err := os.OpenFile(p.base(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	byteAt := make([]byte, 1)
	if _, err := file.ReadAt(byteAt, 20*mib+5); err != nil {
		t.Fatal(err)
	}
	write(t, file, 20*mib+5, []byte{byteAt[0] ^ 1})
	file.Close()
	if err := os.Chtimes(p.base(), time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	// Whether the file's stamp gives it away or the comparison finds it: the replica is not called good.
	r := p.primary.try("verify", vm, "--wait")
	if r.code != 7 {
		t.Errorf("verify ended with %d: %s%s", r.code, r.out, r.err)
	}
	p.primary.try("get", vm).wants(t, 0, "WaitingForStartResynchronize", "Critical")
	p.primary.try("resync", vm, "--wait").wants(t, 0)
	equal(t, p.image(), p.base())
	p.primary.try("verify", vm, "--wait").wants(t, 0, "equal")
}

func TestOneStateDirectoryTwoAgents(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, a := range []*agent{p.replica, p.primary} {
		second := *a
		second.address = freeAddress(t)
		second.args = append([]string{}, a.args...)
		second.args[1] = second.address
		if err := second.tryStart(); err == nil {
			second.kill()
			t.Errorf("a second %s took the same state directory", a.program)
		} else if !strings.Contains(err.Error(), "Only one agent may use a state directory") || !strings.Contains(err.Error(), fmt.Sprint(a.process.Process.Pid)) {
			t.Errorf("a second %s: %v", a.program, err)
		}
		a.try("agent", "get").wants(t, 0)
	}
}

func TestReplicaThatLostItsState(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(48*mib, 113)
	p.replica.stop()
	if err := os.RemoveAll(filepath.Join(p.dir, "agent-replica")); err != nil {
		t.Fatal(err)
	}
	mustMake(t, filepath.Join(p.dir, "agent-replica"))
	p.replica.start()
	p.replica.do("authorize", primaryName)
	changed := rewrite(t, p.image(), 10, 114)
	// Without its record the replica cannot know whose disks lie there: only the operator's word overwrites them.
	before := hash(t, p.base())
	p.primary.try("resync", vm, "--wait").wants(t, 7, "REPLICA_RECORD_MISMATCH", "--force")
	if string(before) != string(hash(t, p.base())) {
		t.Error("a refused resync changed the base")
	}
	done := decode(t, p.primary.do("resync", vm, "--force", "--wait", "-o", "json"), &vmreplicav1.Resync{})
	if sent := done.GetDisks()[0].GetBytesDiffering(); sent != changed*block {
		t.Errorf("%d bytes were sent for %d differing", sent, changed*block)
	}
	equal(t, p.image(), p.base())
}
