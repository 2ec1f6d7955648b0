package transport

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// DialConfig is how a client connects.
type DialConfig struct {
	Credentials *Credentials
	// Want is the role that the server must have; empty means either agent.
	Want Role
	// Dialer connects to host:port; nil means TCP, never through a proxy.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
}

// Dial prepares a connection to host:port; it is made with the first call and again after it was lost. The
// server's certificate must be good for the host and have the wanted role. The caller closes it.
func Dial(address string, config DialConfig) (*grpc.ClientConn, error) {
	if err := checkAddress(address); err != nil {
		return nil, fmt.Errorf("read address %s as HOST:PORT: %w", quote(address), err)
	}
	options := append(clientLimits(), grpc.WithTransportCredentials(config.handshaker()),
		grpc.WithContextDialer(config.dialer()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithStatsHandler(wireHandler{}))
	client, err := grpc.NewClient("dns:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("prepare connection to %s: %w", quote(address), err)
	}
	return client, nil
}

// checkAddress refuses what is not host:port, before gRPC reads it as one of its targets.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" || strings.ContainsAny(host, "/?#@% ") {
		return fmt.Errorf("%s is no host", quote(host))
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return fmt.Errorf("%s is no port", quote(port))
	}
	return nil
}

func (c DialConfig) handshaker() *handshaker {
	check := peerCheck{usage: x509.ExtKeyUsageServerAuth, roles: []Role{RolePrimary, RoleReplica}}
	if c.Want != "" {
		check.roles = []Role{c.Want}
	}
	return &handshaker{own: c.Credentials, check: check}
}

func (c DialConfig) dialer() func(context.Context, string) (net.Conn, error) {
	if c.Dialer != nil {
		return c.Dialer
	}
	return dialTCP
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", address)
}

func clientLimits() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageSize)),
		grpc.WithMaxHeaderListSize(maxHeaderSize),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(ioBufferSize),
		grpc.WithWriteBufferSize(ioBufferSize),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		// The callers have a backoff of their own; the connection's is there to be short.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: DefaultConnectionTimeout,
		}),
	}
}
