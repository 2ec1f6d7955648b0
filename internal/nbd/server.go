package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// The defaults of Options.
const (
	DefaultMaxInFlightBytes = 64 << 20
	DefaultMaxRequests      = 64
	DefaultMaxConnections   = 256
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultStallTimeout     = 10 * time.Second
)

// Options say what a Server serves and how much. Zero fields have their defaults.
type Options struct {
	// Listener stays the caller's: the server neither closes it nor removes its socket, so that clients that
	// connect after the server's end wait for the next one. Its deadline is the server's. Required.
	Listener *net.UnixListener
	// Lookup finds an export by its name, which is UTF-8 without NUL, 4096 bytes at most, and empty for the default
	// one. Any error is answered as unknown export. Required.
	Lookup func(name string) (Export, error)
	// Release is called once for each Lookup that succeeded, when its connection or question needs it no more.
	Release func(Export)
	// List names the exports; without it LIST is refused.
	List func() []string

	// AllowedUIDs are the users that may connect; none stands for the server's own and root.
	AllowedUIDs []uint32
	// MaxConnections are served at once; those above are closed. Default 256.
	MaxConnections int
	// MaxRequests are in flight on one connection; those above are left unread. Default 64.
	MaxRequests int
	// MaxInFlightBytes bounds the payloads of all requests in flight; a request above it runs alone. Default 64
	// MiB. Beside it are one request of up to 256 KiB for each connection.
	MaxInFlightBytes int64
	// HandshakeTimeout is how long a client may take until it transmits. Default 10 s.
	HandshakeTimeout time.Duration
	// StallTimeout is how long a client may take none of a reply, or send none of a payload, that holds memory for
	// which other connections wait; a second for each 16 MiB is added. Default 10 s.
	StallTimeout time.Duration
	// Log is told of connections, refusals and errors of exports. Default: nobody.
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	setDefault(&o.MaxRequests, DefaultMaxRequests)
	setDefault(&o.MaxInFlightBytes, DefaultMaxInFlightBytes)
	setDefault(&o.HandshakeTimeout, DefaultHandshakeTimeout)
	setDefault(&o.StallTimeout, DefaultStallTimeout)
	if len(o.AllowedUIDs) == 0 {
		o.AllowedUIDs = []uint32{0, uint32(os.Geteuid())}
	}
	if o.Release == nil {
		o.Release = func(Export) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o *Options) check() error {
	switch {
	case o.Listener == nil || o.Lookup == nil:
		return errors.New("an NBD server needs a listener and a lookup")
	case o.MaxConnections < 0 || o.MaxRequests < 0 || o.MaxInFlightBytes < 0,
		o.HandshakeTimeout < 0 || o.StallTimeout < 0:
		return errors.New("a limit of an NBD server is negative")
	}
	return nil
}

// Server serves exports on one socket.
type Server struct {
	options Options
	log     *slog.Logger
	budget  *budget
	volumes volumes

	mu          sync.Mutex
	phase       phase              // guarded by mu
	started     bool               // Serve was called, guarded by mu
	connections map[*conn]struct{} // those being served, guarded by mu

	handlers sync.WaitGroup
	// ended is closed when Serve is about to return.
	ended chan struct{}
}

// phase is where a server stands; it only grows.
type phase uint8

const (
	idle phase = iota
	serving
	draining
	closed
)

// NewServer checks the options. Serve starts it.
func NewServer(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.setDefaults()
	return &Server{
		options:     o,
		log:         o.Log,
		budget:      newBudget(o.MaxInFlightBytes),
		volumes:     volumes{known: map[Export]*volume{}},
		connections: map[*conn]struct{}{},
		ended:       make(chan struct{}),
	}, nil
}

// Serve accepts connections until ctx ends, which cuts them, or until Drain. It returns once no call of an Export
// runs any more: nil, or why nothing can be accepted. It is called once.
func (s *Server) Serve(ctx context.Context) error {
	if proceed, err := s.start(); !proceed {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var closer sync.WaitGroup
	closer.Go(func() {
		<-ctx.Done()
		s.cut()
	})
	err := s.accept(ctx)
	if err != nil {
		cancel()
	}
	s.handlers.Wait()
	cancel()
	closer.Wait()
	close(s.ended)
	return err
}

// start enters serving, unless the server was drained before or has been started already, which is an error.
func (s *Server) start() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return false, errors.New("an NBD server serves once")
	}
	s.started = true
	if s.phase != idle {
		return false, nil
	}
	s.phase = serving
	// A deadline may be left from a server that had the listener before; a listener that has none fails at Accept.
	_ = s.options.Listener.SetDeadline(time.Time{})
	return true, nil
}

// Drain ends the server in peace: it accepts no more, answers what was admitted, closes the connections and lets
// Serve return. What a client sent and was not admitted stays unread. A client that reconnects, as QEMU does with
// reconnect-delay, sends that again to the next server; an ESHUTDOWN it would hand to the guest as a failed
// request. When ctx ends before, the connections are cut and ctx's error is returned.
func (s *Server) Drain(ctx context.Context) error {
	if !s.advance(draining, (*conn).stop) {
		return nil
	}
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
		s.cut()
		return ctx.Err()
	}
}

// cut closes every connection and lets none in.
func (s *Server) cut() { s.advance(closed, (*conn).cut) }

// advance enters a phase, ends accepting and does do to each connection; false when nothing was ever served.
func (s *Server) advance(to phase, do func(*conn)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	served := s.phase != idle
	s.phase = max(s.phase, to)
	if served {
		_ = s.options.Listener.SetDeadline(past) // fails where accepting has ended already
	}
	for c := range s.connections {
		do(c)
	}
	return served
}

// past is a deadline that wakes whoever waits for a socket.
var past = time.Unix(1, 0)

// accept serves connections until the phase ends it; then it returns nil.
func (s *Server) accept(ctx context.Context) error {
	for {
		socket, err := s.options.Listener.AcceptUnix()
		switch {
		case s.ending():
			if err == nil {
				_ = socket.Close() // nothing was sent
			}
			return nil
		case err == nil:
			s.welcome(ctx, socket)
		case passes(err):
			s.log.Warn("a connection could not be accepted", "error", err)
			wait(ctx, 100*time.Millisecond)
		default:
			return fmt.Errorf("accept NBD connections: %w", err)
		}
	}
}

func (s *Server) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.phase > serving
}

// passes says whether an error of accept goes away by itself: the client left, or the host is short of something.
func passes(err error) bool {
	return isAny(err, syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM)
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// welcome serves a connection in a goroutine of its own, if its user may connect and there is room for it.
func (s *Server) welcome(ctx context.Context, socket *net.UnixConn) {
	uid, err := peerUID(socket)
	if err == nil && !slices.Contains(s.options.AllowedUIDs, uid) {
		err = fmt.Errorf("user %d may not connect", uid)
	}
	var c *conn
	if err == nil {
		ctx, c, err = s.register(ctx, socket)
	}
	if err != nil {
		s.log.Warn("a connection was refused", "error", err)
		_ = socket.Close() // nothing was sent
		return
	}
	s.handlers.Go(func() {
		defer s.unregister(c)
		c.handle(ctx)
	})
}

// register makes the connection one that Drain and cut end.
func (s *Server) register(ctx context.Context, socket *net.UnixConn) (context.Context, *conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase > serving {
		return nil, nil, errors.New("the server ends")
	}
	if len(s.connections) >= s.options.MaxConnections {
		return nil, nil, fmt.Errorf("%d connections are the limit", s.options.MaxConnections)
	}
	ctx, cancel := context.WithCancel(ctx)
	c := newConn(s, socket, cancel)
	s.connections[c] = struct{}{}
	return ctx, c, nil
}

// unregister closes a connection. A client that sees a drained connection closed knows that the others were told.
func (s *Server) unregister(c *conn) {
	s.mu.Lock()
	delete(s.connections, c)
	s.mu.Unlock()
	c.cut()
}
