package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// AuthInfo is what gRPC carries about the peer of a connection.
type AuthInfo struct {
	credentials.TLSInfo
	Identity Identity
}

// PeerIdentity is who called, in a handler of a server made by NewServer, or who answered, by grpc.Peer on a
// connection made by Dial; false elsewhere.
func PeerIdentity(ctx context.Context) (Identity, bool) {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := caller.AuthInfo.(AuthInfo)
	return info.Identity, ok
}

// handshaker is the credentials as gRPC wants them. Each handshake uses what is loaded at its time.
type handshaker struct {
	own   *Credentials
	check peerCheck
	gate  *handshakeGate
	fails *failureLog
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshaker) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	if err := tuneSocket(raw); err != nil {
		return nil, nil, err
	}
	now := h.own.current.Load()
	secured, info, err := credentials.NewTLS(now.client(h.check, h.own.now)).ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return h.admit(now, raw, secured, info, 0)
}

// ServerHandshake implements credentials.TransportCredentials.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := h.serverHandshake(raw)
	if err != nil && !errors.Is(err, io.EOF) {
		h.fails.refused(raw.RemoteAddr(), err)
	}
	return conn, info, err
}

func (h *handshaker) serverHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	leave, err := h.gate.enter(raw.RemoteAddr())
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	if err := tuneSocket(raw); err != nil {
		return nil, nil, err
	}
	now := h.own.current.Load()
	secured, info, err := credentials.NewTLS(now.server(h.check, h.own.now)).ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return h.admit(now, raw, secured, info, maxConnectionsOfIdentity)
}

// admit enters a new connection into the registry.
func (h *handshaker) admit(
	now *material, raw, secured net.Conn, info credentials.AuthInfo, limit int,
) (net.Conn, credentials.AuthInfo, error) {
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("handshake answered %T", info), raw.Close())
	}
	peer, err := h.check.identify(now.identity.TrustDomain, tlsInfo.State)
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	conn, err := h.own.connections.add(raw, secured, peer, chainEnd(tlsInfo.State.VerifiedChains), limit)
	if err != nil {
		return nil, nil, errors.Join(err, raw.Close())
	}
	return conn, AuthInfo{TLSInfo: tlsInfo, Identity: peer}, nil
}

// Info implements credentials.TransportCredentials.
func (h *handshaker) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials { return h }

// OverrideServerName implements credentials.TransportCredentials. The name checked is the one dialled.
func (h *handshaker) OverrideServerName(string) error {
	return errors.New("the server name is the host that was dialled")
}

// handshakeGate bounds the handshakes that one host may have open at a time: they are answered before the host
// has shown who it is.
type handshakeGate struct {
	mu   sync.Mutex
	open map[string]int // by host, never zero; guarded by mu
}

func newHandshakeGate() *handshakeGate { return &handshakeGate{open: map[string]int{}} }

func (g *handshakeGate) enter(remote net.Addr) (leave func(), err error) {
	host, _, err := net.SplitHostPort(remote.String())
	if err != nil {
		host = remote.String()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[host] >= maxHandshakesOfHost {
		return nil, fmt.Errorf("%d handshakes of this host are open already", maxHandshakesOfHost)
	}
	g.open[host]++
	return func() { g.leave(host) }, nil
}

func (g *handshakeGate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open[host]--; g.open[host] == 0 {
		delete(g.open, host)
	}
}

// failureLog logs refused connections, seldom enough that a stranger cannot fill the log.
type failureLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped atomic.Int64
}

func newFailureLog(log *slog.Logger) *failureLog {
	return &failureLog{log: log, limit: rate.NewLimiter(1, 10)}
}

func (f *failureLog) refused(remote net.Addr, err error) {
	if !f.limit.Allow() {
		f.skipped.Add(1)
		return
	}
	f.log.Warn("connection refused", "remote", remote.String(), "error", quote(err.Error()),
		"not_logged_before", f.skipped.Swap(0))
}
