package qmp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmreplica/agent-primary/qmp"
	"vmreplica/internal/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}` + "\n"
	event    = `{"timestamp": {"seconds": 1}, "event": "STOP"}` + "\n"
)

// short is a directory whose path leaves room for a socket's name.
func short(t *testing.T) string {
	t.Helper()
	directory, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	return directory
}

func allow(t *testing.T, patterns ...string) qmp.Allowed {
	t.Helper()
	allowed, err := qmp.Allow(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return allowed
}

// fake is a monitor: say sends its words, and answer gives the reply to each line that comes.
func fake(t *testing.T, say string, answer func(line string, out net.Conn)) (qmp.Allowed, string) {
	t.Helper()
	directory := short(t)
	socket := filepath.Join(directory, "m.qmp")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(say))
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				answer(lines.Text(), conn)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
	})
	return allow(t, filepath.Join(directory, "*.qmp")), socket
}

// id is the command's, as it came.
func id(line string) string {
	_, after, _ := strings.Cut(line, `"id":`)
	return strings.TrimSuffix(after, "}")
}

// returns answers each command with what returned has for it, {} else; out of order with an event and a stranger's answer
// before it.
func returns(returned map[string]string) func(string, net.Conn) {
	return func(line string, out net.Conn) {
		what := "{}"
		for command, value := range returned {
			if strings.Contains(line, `"`+command+`"`) {
				what = value
			}
		}
		fmt.Fprintf(out, "%s{\"return\": [], \"id\": 4711}\n{\"return\": %s, \"id\": %s}\n", event, what, id(line))
	}
}

const (
	nodes = `[{"node-name": "d0", "drv": "nbd", "file": "nbd+unix:///web01/root?socket=/run/nbd.sock"},
		{"node-name": "d1", "drv": "nbd", "file": "json:{\"driver\": \"nbd\", \"server.path\": \"/run/n\", \"export\": \"web01/data\"}"},
		{"node-name": "tcp", "drv": "nbd", "file": "nbd://host:10809/web01/tcp"},
		{"node-name": "liar", "drv": "file", "file": "nbd+unix:///web01/liar?socket=/run/nbd.sock"},
		{"node-name": "over", "drv": "qcow2", "file": "/images/over.qcow2"}]`
	// A device writes to over, which reads d0; another to d1 through a filter; a job without a name writes to d0.
	drawn = `{"nodes": [{"id": 1, "type": "block-backend", "name": "/machine/peripheral/v0"},
		{"id": 2, "type": "block-driver", "name": "over"}, {"id": 3, "type": "block-driver", "name": "d0"},
		{"id": 4, "type": "block-backend", "name": "v1"}, {"id": 5, "type": "block-driver", "name": "filter"},
		{"id": 6, "type": "block-driver", "name": "d1"}, {"id": 7, "type": "block-backend", "name": ""},
		{"id": 8, "type": "block-driver", "name": "tcp"}, {"id": 9, "type": "block-driver", "name": "liar"}],
		"edges": [{"parent": 1, "child": 2, "name": "root", "perm": ["write", "consistent-read"], "shared-perm": []},
		{"parent": 2, "child": 3, "name": "backing", "perm": ["consistent-read"]},
		{"parent": 7, "child": 3, "name": "root", "perm": ["write"]},
		{"parent": 4, "child": 5, "name": "root", "perm": ["write"]}, {"parent": 5, "child": 6, "name": "backing", "perm": ["write"]},
		{"parent": 1, "child": 8, "name": "root", "perm": ["write"]}, {"parent": 1, "child": 9, "name": "root", "perm": ["write"]}]}`
)

func TestSnapshotsFollowsTheGuestsWrites(t *testing.T) {
	allowed, socket := fake(t, greeting+event, returns(map[string]string{
		"query-named-block-nodes": nodes, "x-debug-query-block-graph": drawn,
	}))
	exports := []string{"web01/data", "web01/root", "web01/tcp", "web01/liar", "web02/root"}
	found, err := allowed.Snapshots(t.Context(), socket, exports)
	if err != nil {
		t.Fatal(err)
	}
	want := []qmp.Found{
		{Export: "web01/data", Use: qmp.Written},
		{Export: "web01/root", Use: qmp.Snapshotted, Above: "over", File: "/images/over.qcow2"},
		{Export: "web01/tcp"}, {Export: "web01/liar"}, {Export: "web02/root"},
	}
	if !slices.Equal(found, want) {
		t.Fatalf("found %+v", found)
	}
}

func TestMonitorsThatMisbehave(t *testing.T) {
	ok := returns(nil)
	silent := func(string, net.Conn) {}
	endless := func(_ string, out net.Conn) {
		for {
			if _, err := fmt.Fprint(out, event); err != nil {
				return
			}
		}
	}
	says := func(what string) func(string, net.Conn) {
		return func(line string, out net.Conn) { fmt.Fprintf(out, what+"\n", id(line)) }
	}
	for name, test := range map[string]struct {
		say    string
		answer func(string, net.Conn)
		reason string
	}{
		"no greeting":        {"", ok, failure.ReasonDeadline},
		"another greeting":   {event, ok, failure.ReasonProtocol},
		"garbage":            {"SSH-2.0-OpenSSH_9.2\r\n", ok, failure.ReasonProtocol},
		"binary":             {"\x00\xff\x00\xff", ok, failure.ReasonProtocol},
		"a greeting of 8MiB": {`{"QMP": "` + strings.Repeat("x", 8<<20), ok, failure.ReasonProtocol},
		"deeply nested":      {strings.Repeat("[", 1<<20), ok, failure.ReasonProtocol},
		"no answer":          {greeting, silent, failure.ReasonDeadline},
		"endless events":     {greeting, endless, failure.ReasonProtocol},
		"another's answers":  {greeting, says(`{"return": [], "id": 4711%.0s}`), failure.ReasonDeadline},
		"another type":       {greeting, says(`{"return": "x", "id": %s}`), failure.ReasonProtocol},
		"nothing returned":   {greeting, says(`{"id": %s}`), failure.ReasonProtocol},
		"no such command":    {greeting, says(`{"error": {"class": "CommandNotFound", "desc": "no"}, "id": %s}`), failure.ReasonUnsupported},
		"it ends":            {greeting, func(_ string, out net.Conn) { _ = out.Close() }, failure.ReasonNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			allowed, socket := fake(t, test.say, test.answer)
			patience := time.Minute
			if test.reason == failure.ReasonDeadline {
				patience = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			found, err := allowed.Snapshots(ctx, socket, []string{"web01/root"})
			if err == nil || failure.Find(err).Reason != test.reason {
				t.Fatalf("found %v, %v", found, err)
			}
		})
	}
}

func TestAQuestionIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	allowed, socket := fake(t, greeting, func(string, net.Conn) { cancel() })
	if _, err := allowed.Snapshots(ctx, socket, nil); err == nil || failure.Find(err).Class != failure.Cancelled {
		t.Fatal(err)
	}
}

func TestOnlyAllowedSocketsAreOpened(t *testing.T) {
	allowed, socket := fake(t, greeting, returns(map[string]string{"query-named-block-nodes": "[]"}))
	directory := filepath.Dir(socket)
	within := func(name string) string { return filepath.Join(directory, name) }
	outside := within("outside.sock")
	if err := errors.Join(
		os.WriteFile(within("file.qmp"), nil, 0o600), os.Symlink(socket, within("link.qmp")), os.Symlink(socket, within("link")),
		os.WriteFile(outside, nil, 0o600), os.Symlink(outside, within("astray.qmp")),
	); err != nil {
		t.Fatal(err)
	}
	for path, reason := range map[string]string{
		socket: "", within("link.qmp"): "", within("link"): "",
		within("file.qmp"):           failure.ReasonUnsupported,
		within("missing.qmp"):        failure.ReasonNotFound,
		within("astray.qmp"):         failure.ReasonPathOutside,
		within("missing"):            failure.ReasonPathOutside,
		outside:                      failure.ReasonPathOutside,
		directory + "/x/../../m.qmp": failure.ReasonPathOutside,
		"m.qmp":                      failure.ReasonInvalidArgument,
		"":                           failure.ReasonInvalidArgument,
	} {
		_, err := allowed.Snapshots(t.Context(), path, nil)
		if reason == "" && err != nil || reason != "" && (err == nil || failure.Find(err).Reason != reason) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := (qmp.Allowed{}).Snapshots(t.Context(), socket, nil); err == nil || failure.Find(err).Reason != failure.ReasonPathOutside {
		t.Errorf("without a pattern: %v", err)
	}
	for _, pattern := range []string{"m.qmp", "/run/[", ""} {
		if _, err := qmp.Allow([]string{pattern}); err == nil {
			t.Errorf("the pattern %q is taken", pattern)
		}
	}
}

func TestASocketWithoutAMachine(t *testing.T) {
	directory := short(t)
	socket := filepath.Join(directory, "m.qmp")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	_ = listener.Close()
	_, err = allow(t, directory+"/*").Snapshots(t.Context(), socket, nil)
	if err == nil || failure.Find(err).Class != failure.Unreachable || failure.Find(err).Remedy == "" {
		t.Fatal(err)
	}
}
