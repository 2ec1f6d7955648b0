package nbd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// readBuffer is what is read from a socket at once, longer payloads apart: a write of 4 KiB with its header. Larger
// ones measured slower, and an idle connection holds it too.
const readBuffer = 8 << 10

// errProtocol ends a connection whose client broke the protocol where no answer is possible.
var errProtocol = errors.New("the client broke the protocol")

// conn is one connection. Its goroutine negotiates, then reads requests; each request has a goroutine.
type conn struct {
	server *Server
	socket *net.UnixConn
	in     *bufio.Reader
	cancel context.CancelFunc
	log    *slog.Logger

	// What the handshake settled; unchanged during the transmission.
	volume     *volume
	size       int64
	readOnly   bool
	structured bool
	// allocation says that base:allocation was chosen for the export named allocationOf.
	allocation   bool
	allocationOf string
	noZeroes     bool

	share    share         // guarded by the budget
	slots    chan *request // those not in flight; nil is one that was never made
	inFlight sync.WaitGroup
	out      sender

	// failures counts requests that the export failed: the first is logged when it happens, the number at the end.
	failures atomic.Int64
}

func newConn(s *Server, socket *net.UnixConn, cancel context.CancelFunc) *conn {
	c := &conn{
		server: s,
		socket: socket,
		in:     bufio.NewReaderSize(socket, readBuffer),
		cancel: cancel,
		log:    s.log,
		slots:  make(chan *request, s.options.MaxRequests),
	}
	for range cap(c.slots) {
		c.slots <- nil
	}
	return c
}

// stop ends reading. What was admitted is answered.
func (c *conn) stop() {
	c.cancel()
	_ = c.socket.SetReadDeadline(past) // fails on a closed socket, where nothing is read
}

// cut ends the connection at once; Export calls that run return to nobody.
func (c *conn) cut() {
	c.cancel()
	_ = c.socket.Close() // a second time at the connection's end
}

// handle serves the connection to its end.
func (c *conn) handle(ctx context.Context) {
	defer c.letGo()
	err := c.negotiate(ctx)
	if err == nil {
		c.log.Debug("a client transmits")
		err = c.transmit(ctx)
		c.inFlight.Wait()
	}
	switch {
	case err == nil, errors.Is(err, errGone):
		c.log.Debug("a client left")
	case ctx.Err() != nil:
		c.log.Debug("a connection was ended")
	default:
		c.log.Warn("a connection ended", "error", err)
	}
}

// letGo gives back the export that the handshake took.
func (c *conn) letGo() {
	if n := c.failures.Load(); n > 1 {
		c.log.Error("requests of a connection failed", "requests", n)
	}
	if c.volume == nil {
		return
	}
	c.server.volumes.giveBack(c.volume)
	c.server.options.Release(c.volume.Export)
}

// readUntil sets the deadline of reading, zero for none; an error when the connection is to end.
func (c *conn) readUntil(ctx context.Context, t time.Time) error {
	if err := c.socket.SetReadDeadline(t); err != nil {
		return err
	}
	return ctx.Err() // stop cancels first, so that its deadline cannot be lost here
}

// failed notes that the export failed a request.
func (c *conn) failed(h header, err error) {
	if c.failures.Add(1) == 1 {
		c.log.Error("a request failed", "command", h.command.String(), "offset", h.offset, "length", h.length,
			"error", err)
	}
}

// allowed is how long n bytes may take to or from a client while others wait for the memory.
func (c *conn) allowed(n int) time.Duration {
	return c.server.options.StallTimeout + time.Duration(n)*time.Second>>24
}

// errGone is the end of a connection between two requests: how QEMU leaves when it is killed.
var errGone = errors.New("the client is gone")

// next waits for the header of a request, as long as it takes.
func (c *conn) next(ctx context.Context) (header, error) {
	for {
		if err := ctx.Err(); err != nil {
			return header{}, err
		}
		raw, err := c.in.Peek(requestLen)
		switch {
		case err == nil:
			h, ok := parseHeader(raw)
			if !ok {
				return header{}, errProtocol
			}
			_, err = c.in.Discard(requestLen)
			return h, err
		case len(raw) == 0 && isAny(err, io.EOF, syscall.ECONNRESET):
			return header{}, errGone
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return header{}, err
		}
		if err := c.readUntil(ctx, time.Time{}); err != nil { // left over from a payload, or stop's
			return header{}, err
		}
	}
}

// fill reads a payload into p, for which memory is granted. A client that stands still is waited for unless others
// wait for the memory.
func (c *conn) fill(ctx context.Context, p []byte) error {
	if c.in.Buffered() >= len(p) {
		_, err := io.ReadFull(c.in, p)
		return err
	}
	if err := c.readUntil(ctx, time.Now().Add(c.allowed(len(p)))); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := c.in.Read(p)
		p = p[n:]
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.server.budget.contended(&c.share) {
			err = c.readUntil(ctx, time.Now().Add(c.allowed(len(p))))
		}
		if err != nil && len(p) > 0 {
			return err
		}
	}
	return nil
}

// skip reads n bytes of a payload that no memory is held for, and drops them.
func (c *conn) skip(ctx context.Context, n int64) error {
	for n > 0 {
		dropped, err := c.in.Discard(int(min(n, readBuffer)))
		n -= int64(dropped)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = c.readUntil(ctx, time.Time{})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
