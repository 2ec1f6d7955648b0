package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Step is one step of the way to a server.
type Step string

// The steps, in order.
const (
	StepAddress Step = "address" // HOST:PORT is well formed
	StepDNS     Step = "dns"     // the host has an address
	StepTCP     Step = "tcp"     // something listens there
	StepTLS     Step = "tls"     // both sides believe each other's certificate
	StepRole    Step = "role"    // the server has the wanted role
)

// ProbeError says at which step the way to a server ends. The steps before it are good.
type ProbeError struct {
	Step Step
	Err  error
}

// Error names the step.
func (e *ProbeError) Error() string { return fmt.Sprintf("%s: %v", e.Step, e.Err) }

// Unwrap is the cause.
func (e *ProbeError) Unwrap() error { return e.Err }

// Probed is what a probe found.
type Probed struct {
	// Address is the address that answered.
	Address string
	// Server is who answered.
	Server Identity
	// NotAfter is when the server's certificate ends.
	NotAfter time.Time
}

// Probe goes the way of a new connection to host:port step by step, makes no call, and says where it ends: its
// errors are *ProbeError. It tries the addresses of the host as Dial does.
func Probe(ctx context.Context, address string, config DialConfig) (Probed, error) {
	if err := checkAddress(address); err != nil {
		return Probed{}, &ProbeError{StepAddress, err}
	}
	raw, err := config.dialer()(ctx, address)
	if err != nil {
		if _, isDNS := errors.AsType[*net.DNSError](err); isDNS {
			return Probed{}, &ProbeError{StepDNS, err}
		}
		return Probed{}, &ProbeError{StepTCP, err}
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	found := Probed{Address: raw.RemoteAddr().String()}
	err = found.handshake(ctx, raw, address, config)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	if _, isRole := errors.AsType[*peerError](err); isRole {
		return found, &ProbeError{StepRole, err}
	}
	if err != nil {
		return found, &ProbeError{StepTLS, err}
	}
	return found, nil
}

// handshake shakes hands and waits for the first byte: only it shows that the server took our certificate.
func (p *Probed) handshake(ctx context.Context, raw net.Conn, address string, config DialConfig) error {
	shake := config.handshaker()
	own := config.Credentials.current.Load()
	settings := own.client(shake.check, config.Credentials.now)
	settings.ServerName, _, _ = net.SplitHostPort(address)
	settings.NextProtos = []string{"h2"}
	conn := tls.Client(raw, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	state := conn.ConnectionState()
	server, err := shake.check.identify(own.identity.TrustDomain, state)
	if err != nil {
		return err
	}
	p.Server, p.NotAfter = server, chainEnd(state.VerifiedChains)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("our certificate is refused or nothing is served: %w", err)
	}
	return nil
}
