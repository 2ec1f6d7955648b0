package transport

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// connectionCheckInterval is how often an open connection is held against the clock, which may be set.
const connectionCheckInterval = time.Minute

// connections are the open ones, so that they can be ended by who is at their other end.
type connections struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	open map[*connection]struct{} // guarded by mu
}

// connection is one open connection. It leaves the registry when it is closed.
type connection struct {
	net.Conn
	raw      net.Conn
	registry *connections
	peer     Identity
	expires  time.Time
	timer    *time.Timer // guarded by registry.mu
}

func newConnections(log *slog.Logger, now func() time.Time) *connections {
	return &connections{log: log, now: now, open: map[*connection]struct{}{}}
}

// add enters a connection. limit is how many the peer may have; zero means any number.
func (r *connections) add(raw, secured net.Conn, peer Identity, expires time.Time, limit int) (*connection, error) {
	c := &connection{Conn: secured, raw: raw, registry: r, peer: peer, expires: expires}
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit > 0 && r.countLocked(peer) >= limit {
		return nil, fmt.Errorf("%s has %d connections already", peer, limit)
	}
	r.open[c] = struct{}{}
	c.timer = time.AfterFunc(r.untilCheck(c), c.examine)
	return c, nil
}

func (r *connections) countLocked(peer Identity) int {
	count := 0
	for c := range r.open {
		if c.peer == peer {
			count++
		}
	}
	return count
}

// untilCheck is how long c may go unexamined.
func (r *connections) untilCheck(c *connection) time.Duration {
	return max(0, min(c.expires.Sub(r.now()), connectionCheckInterval))
}

// closeIdentity closes the connections whose peer match accepts.
func (r *connections) closeIdentity(match func(Identity) bool) int {
	r.mu.Lock()
	var matching []*connection
	for c := range r.open {
		if match(c.peer) {
			matching = append(matching, c)
		}
	}
	r.mu.Unlock()
	for _, c := range matching {
		c.cut("access was withdrawn")
	}
	return len(matching)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.leave()
	return c.Conn.Close()
}

func (c *connection) leave() {
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	delete(c.registry.open, c)
	c.timer.Stop()
}

// cut ends a connection at once: below TLS, which would first wait for a peer that does not read. Its owner finds
// it broken and closes it.
func (c *connection) cut(why string) {
	c.leave()
	c.registry.log.Info("connection closed", "peer", c.peer.String(), "remote", c.raw.RemoteAddr().String(),
		"reason", why)
	c.raw.Close()
}

// examine ends a connection whose peer's certificate has ended and forgets one that was closed below us.
func (c *connection) examine() {
	switch {
	case !c.registry.now().Before(c.expires):
		c.cut("the peer's certificate has ended")
	case c.gone():
		c.leave()
	default:
		c.again()
	}
}

func (c *connection) again() {
	c.registry.mu.Lock()
	defer c.registry.mu.Unlock()
	if _, open := c.registry.open[c]; open {
		c.timer.Reset(c.registry.untilCheck(c))
	}
}

// gone says that the socket is closed, as gRPC leaves it when it fails between handshake and first frame.
func (c *connection) gone() bool {
	socket, ok := c.raw.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}
