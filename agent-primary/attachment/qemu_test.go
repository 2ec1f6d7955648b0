//go:build linux

package attachment_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-primary/attachment"
	"vmreplica/internal/disk"
	"vmreplica/internal/nbd"
)

// zeros is an export of so many bytes that are all zero.
type zeros int64

func (z zeros) Size() int64                            { return int64(z) }
func (zeros) ReadOnly() bool                           { return false }
func (zeros) Description() string                      { return "zeros" }
func (zeros) ReadAt(p []byte, _ int64) (int, error)    { clear(p); return len(p), nil }
func (zeros) WriteAt(p []byte, _ int64) (int, error)   { return len(p), nil }
func (zeros) Zero(int64, int64, nbd.ZeroOptions) error { return nil }
func (zeros) Trim(int64, int64) error                  { return nil }
func (zeros) Flush() error                             { return nil }
func (zeros) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(func(disk.Extent, error) bool) {}
}

// serve answers every export at socket and tells their names.
func serve(t *testing.T, socket string) <-chan string {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 100)
	server, err := nbd.NewServer(nbd.Options{Listener: listener, Lookup: func(name string) (nbd.Export, error) {
		asked <- name
		return zeros(64 << 20), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = listener.Close()
	})
	return asked
}

// machine is a QEMU that runs no guest; it is asked through its monitor.
type machine struct {
	t       *testing.T
	monitor io.Writer
	answers *bufio.Scanner
}

// start has a shell start QEMU with the arguments as an operator would.
func start(t *testing.T, arguments []string) machine {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatalf("%v: make setup", err)
	}
	// libvirt gives its own devices their places.
	const base = "exec qemu-system-x86_64 -machine pc,accel=tcg -m 16 -nodefaults -no-user-config -display none -S -qmp stdio " +
		`-device '{"driver":"virtio-balloon-pci","id":"balloon0","bus":"pci.0","addr":"0x2"}' `
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	qemu := exec.CommandContext(ctx, "sh", "-c", base+strings.Join(arguments, " "))
	qemu.Stderr = os.Stderr
	input, inputErr := qemu.StdinPipe()
	output, outputErr := qemu.StdoutPipe()
	if inputErr != nil || outputErr != nil {
		t.Fatal(inputErr, outputErr)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = qemu.Wait()
	})
	m := machine{t, input, bufio.NewScanner(output)}
	m.answers.Buffer(nil, 16<<20)
	m.ask("qmp_capabilities", "{}", nil)
	return m
}

func (m machine) ask(command, arguments string, into any) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.monitor, "{\"execute\":%q,\"arguments\":%s}\n", command, arguments); err != nil {
		m.t.Fatal(err)
	}
	for m.answers.Scan() {
		var answer struct {
			Return json.RawMessage
			Error  json.RawMessage
		}
		if err := json.Unmarshal(m.answers.Bytes(), &answer); err != nil {
			m.t.Fatal(err)
		}
		if answer.Error != nil {
			m.t.Fatalf("%s: %s", command, answer.Error)
		}
		if answer.Return != nil {
			if into != nil && json.Unmarshal(answer.Return, into) != nil {
				m.t.Fatalf("%s answers %s", command, answer.Return)
			}
			return
		}
	}
	m.t.Fatalf("%s: QEMU has ended", command)
}

func TestQEMUTakesTheArguments(t *testing.T) {
	// A directory of the test's would be too long for a socket.
	directory, err := os.MkdirTemp("", "it's \"a\", $HOME <&>")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	socket := filepath.Join(directory, "nbd.sock")
	asked := serve(t, socket)
	list := disks()
	m := start(t, render(t, socket, "Web.0_1-", list).QEMU)

	got, want := map[string]bool{}, map[string]bool{}
	for len(asked) > 0 { // a client may ask for an export before it attaches it
		got[<-asked] = true
	}
	for _, d := range list {
		want["Web.0_1-/"+d.ID] = true
	}
	if !maps.Equal(got, want) {
		t.Fatalf("QEMU attached %v", got)
	}
	for i, word := range words(t, render(t, socket, "Web.0_1-", list).QEMU) {
		if i%4 != 1 {
			continue
		}
		var b blockdev
		if err := json.Unmarshal([]byte(word), &b); err != nil {
			t.Fatal(err)
		}
		for property, value := range map[string]any{
			"drive": b.Node, "werror": "stop", "rerror": "stop", "write-cache": "on",
			"logical_block_size": float64(list[i/4].LogicalSectorSize),
		} {
			var is any
			m.ask("qom-get", fmt.Sprintf(`{"path":"/machine/peripheral/%s","property":%q}`, b.Node, property), &is)
			if is != value {
				t.Errorf("disk %q has %s %v, want %v", list[i/4].ID, property, is, value)
			}
		}
	}
}

func TestNBDClientsTakeTheURI(t *testing.T) {
	nbdinfo, err := exec.LookPath("nbdinfo")
	if err != nil {
		t.Fatalf("%v: make setup", err)
	}
	directory, err := os.MkdirTemp("", "it's +\"a\" %20&x=<>")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	socket := filepath.Join(directory, "nbd.sock")
	asked := serve(t, socket)
	output, err := exec.Command(nbdinfo, "--size", attachment.URI(socket, "web01", "root")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(output)) != fmt.Sprint(64<<20) || <-asked != "web01/root" {
		t.Fatalf("%s, %v", output, err)
	}
}
