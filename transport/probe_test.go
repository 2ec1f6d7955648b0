package transport_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"vmreplica/transport"
)

func TestProbeSaysWhereTheWayEnds(t *testing.T) {
	ours, others := newPKI(t, ""), newPKI(t, "")
	server := ours.load(transport.RoleReplica, "r")
	address := serve(t, transport.ServerConfig{Credentials: server}, &transferServer{})
	_, port, _ := net.SplitHostPort(address)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	mine := ours.load(transport.RolePrimary, "p")
	// A client that believes the server and is not believed.
	mixed := others.issue(transport.RolePrimary, "p")
	write(t, mixed+"/ca.crt", append(read(t, others.dir+"/ca.crt"), read(t, ours.dir+"/ca.crt")...))
	noName := func(context.Context, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}
	}
	for sentence, c := range map[string]struct {
		address string
		config  transport.DialConfig
		step    transport.Step
	}{
		"all is well":       {address, transport.DialConfig{Credentials: mine, Want: transport.RoleReplica}, ""},
		"no port":           {"127.0.0.1", transport.DialConfig{Credentials: mine}, transport.StepAddress},
		"no such name":      {"h:1", transport.DialConfig{Credentials: mine, Dialer: noName}, transport.StepDNS},
		"nobody listens":    {closed.Addr().String(), transport.DialConfig{Credentials: mine}, transport.StepTCP},
		"another host name": {"127.0.0.2:" + port, transport.DialConfig{Credentials: mine, Dialer: dialTo(address)}, transport.StepTLS},
		"not believed":      {address, transport.DialConfig{Credentials: load(t, mixed)}, transport.StepTLS},
		"the wrong role":    {address, transport.DialConfig{Credentials: mine, Want: transport.RolePrimary}, transport.StepRole},
	} {
		t.Run(sentence, func(t *testing.T) {
			found, err := transport.Probe(t.Context(), c.address, c.config)
			failed, _ := errors.AsType[*transport.ProbeError](err)
			switch {
			case c.step == "" && (err != nil || found.Server != server.Identity() || !found.NotAfter.Equal(server.NotAfter())):
				t.Errorf("found %+v, %v", found, err)
			case c.step != "" && (failed == nil || failed.Step != c.step):
				t.Errorf("ended with %v, want step %s", err, c.step)
			}
		})
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	ours := newPKI(t, "")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = transport.Probe(ctx, silent.Addr().String(), transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p")})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v", err)
	}
}

func dialTo(address string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
}
