package command_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"vmreplica/cmd/vmreplica/command"
	"vmreplica/internal/api"
	"vmreplica/internal/pki"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the operator's clock in every test.
var now = time.Date(2026, 11, 22, 21, 0, 0, 0, time.FixedZone("CET", 3600))

// fakeAgent serves the services over real mutual TLS; each test says what its calls answer.
type fakeAgent struct {
	vmreplicav1.UnimplementedReplicationServiceServer
	vmreplicav1.UnimplementedResyncServiceServer
	vmreplicav1.UnimplementedEventServiceServer
	vmreplicav1.UnimplementedAgentServiceServer
	vmreplicav1.UnimplementedAuthorizationServiceServer
	vmreplicav1.UnimplementedRecoveryPointServiceServer
	vmreplicav1.UnimplementedFailoverServiceServer

	t       testing.TB
	pki     string
	role    string
	address string
	server  *grpc.Server

	mu sync.Mutex
	// answers are by method; requests are what came. Guarded by mu.
	answers  map[string]any
	requests []any
}

// newAgent makes an agent of a role and serves it.
func newAgent(t testing.TB, role string) *fakeAgent {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "pki")
	if _, err := pki.Init(directory, ""); err != nil {
		t.Fatal(err)
	}
	a := &fakeAgent{t: t, pki: directory, role: role, answers: map[string]any{}}
	a.issue(role, "a1")
	a.issue("operator", "alice")
	a.serve("127.0.0.1:0")
	t.Cleanup(func() { a.server.Stop() })
	return a
}

// issue makes a certificate and answers its directory.
func (a *fakeAgent) issue(role, name string) string {
	a.t.Helper()
	var hosts []string
	if role == "replica" {
		hosts = []string{"localhost"}
	}
	issued, err := pki.Issue(a.pki, role, name, hosts)
	if err != nil {
		a.t.Fatal(err)
	}
	return issued.Directory
}

// serve begins to serve, or does again where it did before.
func (a *fakeAgent) serve(address string) {
	a.t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := transport.LoadCredentials(filepath.Join(a.pki, "a1"), log)
	if err != nil {
		a.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		a.t.Fatal(err)
	}
	server := transport.NewServer(transport.ServerConfig{Credentials: credentials, Translate: api.Status, Log: log})
	vmreplicav1.RegisterReplicationServiceServer(server, a)
	vmreplicav1.RegisterResyncServiceServer(server, a)
	vmreplicav1.RegisterEventServiceServer(server, a)
	vmreplicav1.RegisterAgentServiceServer(server, a)
	vmreplicav1.RegisterAuthorizationServiceServer(server, a)
	vmreplicav1.RegisterRecoveryPointServiceServer(server, a)
	vmreplicav1.RegisterFailoverServiceServer(server, a)
	a.address, a.server = listener.Addr().String(), server
	go server.Serve(listener)
}

// ran is how an invocation ended.
type ran struct {
	code     int
	out, err string
}

func (a *fakeAgent) run(args ...string) ran { return a.runContext(a.t.Context(), args...) }

func (a *fakeAgent) runContext(ctx context.Context, args ...string) ran {
	return run(ctx, a.environment(), args...)
}

// runAsked runs where a person sits who types.
func (a *fakeAgent) runAsked(types io.Reader, args ...string) ran {
	return runStreams(a.t.Context(), a.environment(), command.Streams{In: types, Interactive: true}, args...)
}

func (a *fakeAgent) environment() map[string]string {
	return map[string]string{"VMREPLICA_SERVER": a.address, "VMREPLICA_TLS_DIR": filepath.Join(a.pki, "alice")}
}

func run(ctx context.Context, environment map[string]string, args ...string) ran {
	return runStreams(ctx, environment, command.Streams{}, args...)
}

func runStreams(ctx context.Context, environment map[string]string, streams command.Streams, args ...string) ran {
	var out, err strings.Builder
	streams.Out, streams.Err, streams.Now = &out, &err, func() time.Time { return now }
	streams.Getenv = func(name string) string { return environment[name] }
	code := command.Run(ctx, args, streams)
	return ran{code, out.String(), err.String()}
}

// expect fails the test unless the invocation ended with a code, and its outputs hold what they should.
func (r ran) expect(t testing.TB, code int, outHolds, errHolds string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out, outHolds) || !strings.Contains(r.err, errHolds) {
		t.Errorf("ended with %d, want %d\noutput: %s\n  want: %s\nerrors: %s\n  want: %s", r.code, code, r.out, outHolds, r.err, errHolds)
	}
}

// answer sets what a method answers: a func of its request.
func answer[Q, A any](a *fakeAgent, method string, with func(Q) (A, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[method] = with
}

// fail sets what error a method answers.
func fail[Q, A any](a *fakeAgent, method string, err error) {
	answer(a, method, func(Q) (A, error) { var none A; return none, err })
}

// handle notes a request and answers it.
func handle[Q, A any](a *fakeAgent, method string, request Q) (A, error) {
	a.mu.Lock()
	a.requests = append(a.requests, request)
	with, ok := a.answers[method].(func(Q) (A, error))
	a.mu.Unlock()
	if !ok {
		var none A
		a.t.Errorf("%s was not expected", method)
		return none, nil
	}
	return with(request)
}

// asked are the requests of one kind, in order.
func asked[Q any](a *fakeAgent) []Q {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []Q
	for _, request := range a.requests {
		if of, ok := request.(Q); ok {
			found = append(found, of)
		}
	}
	return found
}
