package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"vmreplica/internal/daemon"
)

// The test binary is the agent as well: with asAgent set it runs Main instead of the tests.
const asAgent = "VMREPLICA_TEST_AGENT"

func TestMain(m *testing.M) {
	run := map[string]func(context.Context, *daemon.Host) error{
		"orderly": orderly, "stubborn": stubborn, "failing": failAtOnce, "quitting": quitAtOnce, "sick": sick,
	}[os.Getenv(asAgent)]
	if run == nil {
		goleak.VerifyTestMain(m)
		return
	}
	os.Exit(daemon.Main(daemon.Program{
		Name: "agent-test", Purpose: "a test", Config: newSettings(), Run: run, Drain: 200 * time.Millisecond,
	}, os.Args[1:], os.Stdout, os.Stderr))
}

func orderly(ctx context.Context, host *daemon.Host) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit.Cur != 0 || limit.Max != 0 {
		return errors.New("core dumps are possible")
	}
	host.AddCheck("state", func(context.Context) error { return nil })
	host.Ready()
	host.Status("1 VM\nREADY=0")
	<-ctx.Done()
	return ctx.Err()
}

func stubborn(_ context.Context, host *daemon.Host) error {
	host.Ready()
	select {}
}

func quitAtOnce(context.Context, *daemon.Host) error { return nil }

// sick passes its check once: the watchdog is fed no more than that.
func sick(ctx context.Context, host *daemon.Host) error {
	var asked atomic.Int32
	host.AddCheck("state", func(context.Context) error {
		if asked.Add(1) > 1 {
			return errors.New("stuck")
		}
		return nil
	})
	host.Ready()
	<-ctx.Done()
	return nil
}

// agent is a running agent as systemd sees it.
type agent struct {
	*exec.Cmd
	notices *net.UnixConn
	log     *bufio.Reader
	rest    bytes.Buffer
}

func start(t *testing.T, kind string, env []string, args ...string) *agent {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	notices, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--tls-dir", "t", "--state-dir", "s", "--log-format", "json"}, args...)
	a := &agent{Cmd: exec.Command(os.Args[0], args...), notices: notices}
	a.Env = append(os.Environ(), append(env, asAgent+"="+kind, "NOTIFY_SOCKET="+socket)...)
	stderr, err := a.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	a.log = bufio.NewReader(io.TeeReader(stderr, &a.rest))
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Process.Kill()
		a.Wait()
		notices.Close()
	})
	return a
}

// notice is the next one, within ten seconds.
func (a *agent) notice(t *testing.T) string {
	t.Helper()
	buffer := make([]byte, 4096)
	a.notices.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := a.notices.Read(buffer)
	if err != nil {
		t.Fatalf("no notice came: %v; log:\n%s", err, a.rest.String())
	}
	return string(buffer[:n])
}

// until reads the log up to a line with this message and answers the line.
func (a *agent) until(t *testing.T, message string) map[string]any {
	t.Helper()
	for {
		text, err := a.log.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the log ended without %q:\n%s", message, a.rest.String())
		}
		var line map[string]any
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatalf("the log is not JSON: %s", text)
		}
		if line["msg"] == message {
			return line
		}
	}
}

func (a *agent) exitCode(t *testing.T) int {
	t.Helper()
	if _, err := io.Copy(io.Discard, a.log); err != nil {
		t.Fatal(err)
	}
	a.Wait()
	return a.ProcessState.ExitCode()
}

func TestReadyStatusStoppingAndAnOrderlyEnd(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		a := start(t, "orderly", nil)
		for _, want := range []string{"READY=1", "STATUS=1 VM READY=0"} {
			if got := a.notice(t); got != want {
				t.Fatalf("got notice %q, want %q", got, want)
			}
		}
		a.Process.Signal(signal)
		if got := a.notice(t); got != "STOPPING=1" {
			t.Errorf("after %v: notice %q", signal, got)
		}
		if code := a.exitCode(t); code != 0 {
			t.Errorf("after %v: exit code %d:\n%s", signal, code, a.rest.String())
		}
	}
}

func TestDrainIsBounded(t *testing.T) {
	a := start(t, "stubborn", nil)
	a.notice(t)
	a.Process.Signal(syscall.SIGTERM)
	if line := a.until(t, "the agent failed"); !strings.Contains(line["error"].(string), "200ms") {
		t.Errorf("got %v", line)
	}
	if code := a.exitCode(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

func TestRunThatEndsByItselfIsAFailure(t *testing.T) {
	for kind, want := range map[string]string{"failing": "no such disk", "quitting": "without being asked"} {
		a := start(t, kind, nil)
		if line := a.until(t, "the agent failed"); !strings.Contains(line["error"].(string), want) {
			t.Errorf("%s: %v", kind, line)
		}
		if code := a.exitCode(t); code != 1 {
			t.Errorf("%s: exit code %d", kind, code)
		}
	}
}

func TestWatchdogIsFedOnlyWhileChecksPass(t *testing.T) {
	environment := []string{"WATCHDOG_USEC=100000"}
	healthy := start(t, "orderly", environment)
	fed := 0
	for fed < 3 {
		if healthy.notice(t) == "WATCHDOG=1" {
			fed++
		}
	}
	ill := start(t, "sick", environment)
	line := ill.until(t, "a check failed, the watchdog is not fed")
	if line["error"] != "state: stuck" {
		t.Errorf("got %v", line)
	}
	ill.Process.Signal(syscall.SIGTERM)
	for before := 0; ; before++ {
		notice := ill.notice(t)
		if notice == "STOPPING=1" {
			break
		}
		if before > 2 { // one before the check was added, one that passed, and READY
			t.Fatalf("notice %q after the check had failed", notice)
		}
	}
}

func TestMetricsAndHealthOverHTTP(t *testing.T) {
	a := start(t, "orderly", nil, "--metrics-listen", "127.0.0.1:0")
	address := a.until(t, "metrics are served")["address"].(string)
	a.notice(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{
		"/metrics": "vmreplica_build_info{", "/healthz": "ok\n", "/readyz": "ok\n",
	} {
		response, err := client.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %v %.200s", path, response.Status, err, body)
		}
	}
	response, err := client.Post("http://"+address+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", response.Status)
	}
}
