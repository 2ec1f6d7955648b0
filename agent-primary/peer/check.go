package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/transport"
)

// Bounds of a connection test: one step, and how far two clocks may be apart.
const (
	stepTimeout = 10 * time.Second
	clockSpread = time.Minute
)

// Check is one step of a connection test.
type Check struct {
	Name    string
	Passed  bool
	Message string
	// Remedy is what to do when it failed.
	Remedy   string
	Duration time.Duration
}

// test is one run through the steps.
type test struct {
	config     Config
	address    string
	host, port string
	server     transport.Identity
	roleErr    error
	hello      relationship.Hello
	helloErr   error
	checks     []Check
}

// Test tries the way to the replica at address, step by step: dns, tcp, tls, role, entry, version, space, clock.
// The first failure ends the list.
func Test(ctx context.Context, config Config, address string) ([]Check, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the address %q is not host:port", cut(address)).
			Try("Give it as in replica.example:7443.")
	}
	t := &test{config: config, address: address, host: host, port: port}
	steps := []struct {
		name string
		run  func(context.Context) (string, *failure.Error)
	}{
		{"dns", t.dns}, {"tcp", t.tcp}, {"tls", t.tls}, {"role", t.role}, {"entry", t.entry},
		{"version", t.version}, {"space", t.space}, {"clock", t.clock},
	}
	for _, step := range steps {
		if !t.run(ctx, step.name, step.run) {
			break
		}
	}
	return t.checks, ctx.Err()
}

func (t *test) run(ctx context.Context, name string, step func(context.Context) (string, *failure.Error)) bool {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	began := time.Now()
	message, failed := step(ctx)
	check := Check{Name: name, Passed: failed == nil, Message: message, Duration: time.Since(began)}
	if failed != nil {
		check.Message, check.Remedy = failed.Message, failed.Remedy
	}
	t.checks = append(t.checks, check)
	return check.Passed
}

func (t *test) failed(remedy, format string, args ...any) (string, *failure.Error) {
	return "", failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, format, args...).Try("%s", remedy)
}

func (t *test) dns(ctx context.Context) (string, *failure.Error) {
	addresses, err := net.DefaultResolver.LookupHost(ctx, t.host)
	if err != nil {
		return t.failed("Correct the name, or enter it in DNS or /etc/hosts.", "%s is not found: %w", t.host, err)
	}
	return fmt.Sprintf("%s is %v", t.host, addresses[:min(len(addresses), 4)]), nil
}

func (t *test) tcp(ctx context.Context) (string, *failure.Error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.address)
	if err != nil {
		return t.failed("Start agent-replica there, and let the port through the firewalls between.",
			"nothing answers at %s: %w", t.address, err)
	}
	reached := conn.RemoteAddr().String()
	if err := conn.Close(); err != nil {
		return t.failed("", "close the connection: %w", err)
	}
	return "connected to " + reached, nil
}

// tls shakes hands; who answered is looked at in the next step.
func (t *test) tls(ctx context.Context) (string, *failure.Error) {
	probed, err := t.config.Probe(ctx, t.address)
	var failedAt *transport.ProbeError
	if errors.As(err, &failedAt) && failedAt.Step == transport.StepRole {
		t.roleErr = failedAt.Err
		return "both sides believe each other's certificate", nil
	}
	if err != nil {
		return t.failed("Compare both agents' tls.crt and ca.crt: same authority, not expired, and the host "+
			t.host+" in the replica's certificate.", "no secure connection: %w", err)
	}
	t.server = probed.Server
	return fmt.Sprintf("the certificate is %s, good until %s", probed.Server, probed.NotAfter.UTC().Format(time.DateOnly)), nil
}

func (t *test) role(context.Context) (string, *failure.Error) {
	if t.roleErr != nil {
		return t.failed("Give the address of an agent-replica.", "%w", t.roleErr)
	}
	return "it is the replica " + t.server.Name, nil
}

// entry asks for Hello; the later steps look at what was answered.
func (t *test) entry(ctx context.Context) (string, *failure.Error) {
	replica := newReplica(t.address, t.config)
	t.hello, t.helloErr = replica.hello(ctx)
	if err := replica.close(); err != nil {
		return t.failed("", "close the connection: %w", err)
	}
	found := &failure.Error{}
	if t.helloErr != nil {
		found = failure.Find(t.helloErr)
	}
	switch {
	case found.Class == failure.Denied || t.helloErr == nil && t.hello.Authorization == "":
		return t.failed("On the replica: vmreplica authorize NAME, with this primary's name.",
			"the replica has no authorization entry for this primary")
	case found.Class == failure.Unsupported: // the next step says so
		return "the replica answers", nil
	case t.helloErr != nil:
		return "", found
	}
	return "admitted by the entry " + t.hello.Authorization, nil
}

func (t *test) version(context.Context) (string, *failure.Error) {
	if t.helloErr != nil {
		return "", failure.Find(t.helloErr)
	}
	return fmt.Sprintf("protocol %d, agent-replica %s", t.hello.Version, t.hello.AgentVersion), nil
}

func (t *test) space(context.Context) (string, *failure.Error) {
	if t.hello.FreeBytes == 0 {
		return t.failed("Make room on the replica's storage.", "the replica's storage is full")
	}
	if t.hello.FreeBytes < 0 {
		return "the replica does not tell its free space", nil
	}
	return event.Size(t.hello.FreeBytes) + " are free on the replica's storage", nil
}

func (t *test) clock(context.Context) (string, *failure.Error) {
	apart := t.hello.Ahead.Abs().Round(time.Millisecond)
	if apart > clockSpread {
		return t.failed("Synchronize the clocks of both hosts, for example with chrony.", "the clocks are %v apart", apart)
	}
	return fmt.Sprintf("the clocks are %v apart", apart), nil
}
