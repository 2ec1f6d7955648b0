package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// The names of the certificates that all tests share.
const (
	primaryName  = "p1"
	replicaName  = "r1"
	operatorName = "alice"
	viewerName   = "victor"
	vm           = "web01"
)

// bound is how long anything that must happen may take on a busy machine.
const bound = 90 * time.Second

// built is where TestMain put the programs, shared the certificates of all tests.
var built, shared string

func TestMain(m *testing.M) { os.Exit(prepared(m)) }

func prepared(m *testing.M) int {
	dir, err := os.MkdirTemp("", "vmreplica-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built, shared = filepath.Join(dir, "bin"), filepath.Join(dir, "pki")
	// The tests mostly wait, for intervals and for other processes.
	flag.Parse()
	if err := flag.Set("test.parallel", fmt.Sprint(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

// prepare builds the programs and issues the certificates.
func prepare() error {
	build := exec.Command("go", "build", "-buildvcs=false", "-o", built+"/", "./agent-primary", "./agent-replica", "./cmd/vmreplica")
	build.Dir = "../.."
	steps := []*exec.Cmd{build, exec.Command(built+"/vmreplica", "pki", "init", "--dir", shared)}
	for _, holder := range [][]string{
		{"primary", primaryName}, {"replica", replicaName, "--host", "127.0.0.1"}, {"operator", operatorName}, {"viewer", viewerName},
	} {
		steps = append(steps, exec.Command(built+"/vmreplica", append([]string{
			"pki", "issue", "--dir", shared, "--role", holder[0], "--name", holder[1]}, holder[2:]...)...))
	}
	for _, step := range steps {
		if output, err := step.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", step, err, output)
		}
	}
	return nil
}

// pair is two agents of one test.
type pair struct {
	t                *testing.T
	dir              string
	images, storage  string
	primary, replica *agent
	// reached is where the primary finds the replica: the replica itself unless a proxy stands between.
	reached string
}

// newPair makes the directories and starts both agents.
func newPair(t *testing.T, more ...func(*pair)) *pair {
	t.Helper()
	p := &pair{t: t, dir: t.TempDir()}
	p.images, p.storage = filepath.Join(p.dir, "images"), filepath.Join(p.dir, "storage")
	mustMake(t, p.images, p.storage)
	p.replica = p.agent("agent-replica", replicaName)
	p.primary = p.agent("agent-primary", primaryName, "--image-dir", p.images)
	p.reached = p.replica.address
	for _, change := range more {
		change(p)
	}
	if !strings.Contains(strings.Join(p.replica.args, " "), "--storage-dir") {
		p.replica.args = append(p.replica.args, "--storage-dir", p.storage)
	}
	p.replica.start()
	p.primary.start()
	return p
}

func mustMake(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// agent is one agent's process, or the place for it.
type agent struct {
	t       *testing.T
	bin     string // where its program is
	program string
	args    []string
	env     []string // beside that of the test
	within  []string // the command that runs it; empty for none
	address string
	log     string
	process *exec.Cmd
	ended   chan error
	clients *services // made when first needed
}

func (p *pair) agent(program, name string, args ...string) *agent {
	address := freeAddress(p.t)
	state := filepath.Join(p.dir, program)
	mustMake(p.t, state)
	a := &agent{t: p.t, bin: built, program: program, address: address, log: filepath.Join(p.dir, program+".log")}
	a.args = append([]string{
		"--listen", address, "--tls-dir", filepath.Join(shared, name), "--state-dir", state, "--log-level", "debug",
	}, args...)
	p.t.Cleanup(func() {
		a.kill()
		if p.t.Failed() {
			content, _ := os.ReadFile(a.log)
			p.t.Logf("the end of %s's log:\n%s", program, tail(string(content), 40))
		}
	})
	return a
}

// freeAddress is a port of the loopback that nobody has, outside the range from which connections take theirs: an
// agent that is started again finds it free.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(22_000)))
		if listener, err := net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start starts the agent and waits until it serves.
func (a *agent) start() {
	a.t.Helper()
	if err := a.tryStart(); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) tryStart() error {
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	line := append(append(slices.Clone(a.within), filepath.Join(a.bin, a.program)), a.args...)
	process := exec.Command(line[0], line[1:]...)
	process.Env = append(os.Environ(), a.env...)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	a.process, a.ended = process, ended
	deadline := time.Now().Add(bound)
	for {
		said, err := readFrom(a.log, from)
		switch {
		case err != nil:
			return err
		case strings.Contains(said, "the API is served"):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("%s does not serve: %s", a.program, said)
		}
		select {
		case err := <-ended:
			ended <- err
			said, _ := readFrom(a.log, from)
			return fmt.Errorf("%s ended: %w: %s", a.program, err, said)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func readFrom(name string, offset int64) (string, error) {
	content, err := os.ReadFile(name)
	return string(content[min(offset, int64(len(content))):]), err
}

// stop asks the agent to end, which it must do well.
func (a *agent) stop() {
	a.t.Helper()
	a.signal(syscall.SIGTERM)
	select {
	case err := <-a.ended:
		if err != nil {
			a.t.Errorf("%s asked to end: %v", a.program, err)
		}
	case <-time.After(30 * time.Second):
		a.t.Errorf("%s did not end", a.program)
	}
	a.process = nil
}

// kill ends the agent as a power cut would end its process.
func (a *agent) kill() {
	if a.process == nil {
		return
	}
	_ = a.process.Process.Kill()
	<-a.ended
	a.process = nil
}

func (a *agent) signal(signal syscall.Signal) {
	a.t.Helper()
	if err := a.process.Process.Signal(signal); err != nil {
		a.t.Fatal(err)
	}
}

// result is how a program ended.
type result struct {
	args     []string
	code     int
	out, err string
}

// command is the command line as somebody types it, at an agent.
func command(holder string, at *agent, args ...string) *exec.Cmd {
	tlsDir := holder
	if !filepath.IsAbs(tlsDir) {
		tlsDir = filepath.Join(shared, holder)
	}
	args = append([]string{"--server", at.address, "--tls-dir", tlsDir}, args...)
	typed := exec.Command(filepath.Join(built, "vmreplica"), args...)
	typed.Env = append(os.Environ(), "TZ=UTC")
	typed.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return typed
}

// as types a command with the certificate of holder: a name, or a directory.
func (a *agent) as(holder string, args ...string) result {
	a.t.Helper()
	typed := command(holder, a, args...)
	var out, errs bytes.Buffer
	typed.Stdout, typed.Stderr = &out, &errs
	err := typed.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		a.t.Fatal(err)
	}
	return result{args: args, code: typed.ProcessState.ExitCode(), out: out.String(), err: errs.String()}
}

// try types a command as the operator.
func (a *agent) try(args ...string) result {
	a.t.Helper()
	return a.as(operatorName, args...)
}

// do is try that must succeed; it answers what was written.
func (a *agent) do(args ...string) string {
	a.t.Helper()
	r := a.try(args...)
	r.wants(a.t, 0)
	return r.out
}

// wants checks the exit code and that what was written holds every text.
func (r result) wants(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("vmreplica %s: exit code %d, want %d\n%s%s", strings.Join(r.args, " "), r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("vmreplica %s does not say %q:\n%s%s", strings.Join(r.args, " "), text, r.out, r.err)
		}
	}
}

// decode reads what a command writes with -o json.
func decode[M proto.Message](t *testing.T, output string, into M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(output), into); err != nil {
		t.Fatalf("%v in:\n%s", err, output)
	}
	return into
}

// services are the operator's clients of one agent, for what must be seen at once. They survive the agent's restarts.
type services struct {
	vmreplicav1.ReplicationServiceClient
	vmreplicav1.ResyncServiceClient
}

func (a *agent) services() services {
	a.t.Helper()
	if a.clients != nil {
		return *a.clients
	}
	credentials, err := transport.LoadCredentials(filepath.Join(shared, operatorName), slog.New(slog.DiscardHandler))
	if err != nil {
		a.t.Fatal(err)
	}
	connection, err := transport.Dial(a.address, transport.DialConfig{Credentials: credentials})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { connection.Close() })
	a.clients = &services{vmreplicav1.NewReplicationServiceClient(connection), vmreplicav1.NewResyncServiceClient(connection)}
	return *a.clients
}

// status is the VM as an agent shows it; nil while it does not answer.
func (s services) status(ctx context.Context) *vmreplicav1.ReplicationStatus {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := s.GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm}, grpc.WaitForReady(true))
	if err != nil {
		return nil
	}
	return r.GetStatus()
}

// newest is the VM's newest resync; nil while the agent does not answer.
func (s services) newest(ctx context.Context) *vmreplicav1.Resync {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := s.GetResync(ctx, &vmreplicav1.GetResyncRequest{Vm: vm}, grpc.WaitForReady(true))
	if err != nil {
		return nil
	}
	return r
}

// eventually waits until met; it fails the test with what it waited for.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !met(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", bound, what)
		}
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
