//go:build linux

package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-primary/qmp"
)

// machine is a QEMU that runs no guest, with a device v0 on what is called top. It has two monitors: one is the test's,
// the other is asked by the package.
type machine struct {
	t         *testing.T
	directory string
	allowed   qmp.Allowed
	asked     string
	own       net.Conn
	answers   *bufio.Scanner
	events    map[string]bool // that have come
}

// run starts a program that ends with the test, and waits until it has made its sockets.
func run(t *testing.T, sockets []string, name string, arguments ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: make setup does that", name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	program := exec.CommandContext(ctx, path, arguments...)
	program.Stderr = os.Stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = program.Wait()
	})
	for _, socket := range sockets {
		for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			if listening(t, socket) {
				break
			}
			if time.Since(begun) > time.Minute {
				t.Fatalf("%s does not make %s", name, socket)
			}
		}
	}
}

// listening says whether somebody accepts at a socket. Its file is there a moment earlier.
func listening(t *testing.T, socket string) bool {
	t.Helper()
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		if fields := strings.Fields(line); len(fields) == 8 && fields[7] == socket && fields[3] == "00010000" {
			return true
		}
	}
	return false
}

// start runs a machine whose export web01/root is the node d0; above are further -blockdev values, top among them.
func start(t *testing.T, top string, above ...string) machine {
	t.Helper()
	directory := short(t)
	at := func(name string) string { return filepath.Join(directory, name) }
	if err := os.WriteFile(at("root.img"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, []string{at("nbd.sock")}, "qemu-nbd", "-k", at("nbd.sock"), "-x", "web01/root", "-f", "raw", "--persistent", "-e", "4", at("root.img"))
	arguments := []string{
		"-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-no-user-config", "-display", "none",
		"-qmp", "unix:" + at("asked.qmp") + ",server=on,wait=off", "-qmp", "unix:" + at("own") + ",server=on,wait=off",
	}
	d0 := fmt.Sprintf(`{"driver":"nbd","node-name":"d0","server":{"type":"unix","path":%q},"export":"web01/root"}`, at("nbd.sock"))
	for _, blockdev := range append([]string{d0}, above...) {
		arguments = append(arguments, "-blockdev", blockdev)
	}
	run(t, []string{at("asked.qmp"), at("own")}, "qemu-system-x86_64",
		append(arguments, "-device", "virtio-blk-pci,id=v0,drive="+top)...)
	own, err := net.Dial("unix", at("own"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	m := machine{t, directory, allow(t, at("*.qmp")), at("asked.qmp"), own, bufio.NewScanner(own), map[string]bool{}}
	m.answers.Buffer(nil, 4<<20)
	m.do("qmp_capabilities", `{}`)
	return m
}

// do carries out a command; DIR in its arguments stands for the machine's directory.
func (m machine) do(command, arguments string) {
	m.t.Helper()
	arguments = strings.ReplaceAll(arguments, "DIR", m.directory)
	if _, err := fmt.Fprintf(m.own, "{\"execute\":%q,\"arguments\":%s}\n", command, arguments); err != nil {
		m.t.Fatal(err)
	}
	m.await(func(answer reply) bool {
		if answer.Error != nil {
			m.t.Fatalf("%s: %s", command, answer.Error)
		}
		return answer.Return != nil
	})
}

type reply struct {
	Return, Error json.RawMessage
	Event         string
}

// await reads until what is looked for has come.
func (m machine) await(is func(reply) bool) {
	m.t.Helper()
	for m.answers.Scan() {
		var answer reply
		if err := json.Unmarshal(m.answers.Bytes(), &answer); err != nil {
			m.t.Fatal(err)
		}
		m.events[answer.Event] = true
		if is(answer) {
			return
		}
	}
	m.t.Fatal("QEMU has ended")
}

// event waits for one, unless it has come already.
func (m machine) event(name string) {
	m.t.Helper()
	if m.events[name] {
		return
	}
	m.await(func(answer reply) bool { return answer.Event == name })
}

// expect asks the machine, which must do with web01/root as is said.
func (m machine) expect(use qmp.Use, above string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	found, err := m.allowed.Snapshots(ctx, m.asked, []string{"web01/other", "web01/root"})
	if err != nil {
		m.t.Fatal(err)
	}
	want := []qmp.Found{{Export: "web01/other"}, {Export: "web01/root", Use: use, Above: above}}
	if above != "" {
		want[1].File = filepath.Join(m.directory, above+".qcow2")
	}
	if !slices.Equal(found, want) {
		m.t.Fatalf("found %+v, want %+v", found, want)
	}
}

// overlay takes a snapshot of a node into a new one.
func (m machine) overlay(node, name string) {
	m.t.Helper()
	m.do("blockdev-snapshot-sync", fmt.Sprintf(
		`{"node-name":%q,"snapshot-file":"DIR/%s.qcow2","snapshot-node-name":%q,"format":"qcow2"}`, node, name, name))
}

func TestASnapshotIsFoundUntilItIsCommitted(t *testing.T) {
	m := start(t, "d0")
	m.expect(qmp.Written, "")
	m.overlay("d0", "first")
	m.expect(qmp.Snapshotted, "first")
	m.overlay("first", "second")
	m.expect(qmp.Snapshotted, "second")

	m.do("block-commit", `{"job-id":"c","device":"second","base-node":"d0"}`)
	m.event("BLOCK_JOB_READY") // the job writes to the export, the guest does not yet
	m.expect(qmp.Snapshotted, "second")
	m.do("block-job-complete", `{"device":"c"}`)
	m.event("BLOCK_JOB_COMPLETED")
	m.expect(qmp.Written, "")
}

func TestLayersThatPassWritesOnAreNoSnapshots(t *testing.T) {
	m := start(t, "filter", `{"driver":"raw","node-name":"format","file":"d0"}`,
		`{"driver":"copy-on-read","node-name":"filter","file":"format"}`)
	m.expect(qmp.Written, "")
	m.overlay("filter", "over")
	m.expect(qmp.Snapshotted, "over")
}

// What backup tools do: an image above the export keeps what the guest overwrites, and the guest writes to the export.
func TestAFleeceIsNoSnapshot(t *testing.T) {
	m := start(t, "d0")
	fleece := filepath.Join(m.directory, "fleece.qcow2")
	if output, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", fleece, "1M").CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", output, err)
	}
	m.do("blockdev-add", `{"driver":"file","node-name":"file","filename":"DIR/fleece.qcow2"}`)
	m.do("blockdev-add", `{"driver":"qcow2","node-name":"fleece","file":"file","backing":"d0"}`)
	m.do("blockdev-backup", `{"job-id":"b","device":"d0","target":"fleece","sync":"none"}`)
	m.expect(qmp.Written, "")
}

func TestAnExportThatIsNotWrittenIsUnused(t *testing.T) {
	m := start(t, "other", `{"driver":"null-co","node-name":"other","size":1048576}`)
	m.expect(qmp.Unused, "")
	m.do("blockdev-add", `{"driver":"raw","node-name":"above","file":"d0"}`)
	m.expect(qmp.Unused, "")
}

// The monitor is free again after each question, and a monitor that somebody else uses is not waited for without end.
func TestAMonitorServesOneClient(t *testing.T) {
	m := start(t, "d0")
	for range 20 {
		m.expect(qmp.Written, "")
	}
	taken, err := net.Dial("unix", m.asked)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := bufio.NewReader(taken).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if found, err := m.allowed.Snapshots(ctx, m.asked, []string{"web01/root"}); err == nil {
		t.Fatalf("found %v", found)
	}
}
