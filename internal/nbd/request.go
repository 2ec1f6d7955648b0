package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"vmreplica/internal/disk"
)

// request is one request from its header to its reply. Its connection's reader owns it until it is admitted, then
// its goroutine, then who sends its reply.
type request struct {
	header
	grant   grant
	payload *buffer // nil when there is none
	err     errno
	reply
}

// transmit reads requests until the client leaves or breaks the protocol, or ctx ends.
func (c *conn) transmit(ctx context.Context) error {
	for {
		h, err := c.next(ctx)
		if err != nil || h.command == cmdDisc {
			return err
		}
		r, err := c.slot(ctx)
		if err != nil {
			return err
		}
		r.header = h
		if err := c.admit(ctx, r); err != nil {
			c.release(r)
			return fmt.Errorf("read a %v of %d bytes: %w", h.command, h.length, err)
		}
		c.inFlight.Add(1)
		go c.perform(r)
	}
}

// slot waits until the connection may have one request more.
func (c *conn) slot(ctx context.Context) (*request, error) {
	select {
	case r := <-c.slots:
		if r == nil {
			r = &request{}
		}
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// admit judges a request and reads its payload into memory that was granted for it.
func (c *conn) admit(ctx context.Context, r *request) error {
	r.err = r.judge(terms{size: c.size, readOnly: c.readOnly, structured: c.structured, allocation: c.allocation})
	if r.err != 0 {
		if r.command == cmdWrite {
			return c.skip(ctx, int64(r.length))
		}
		return nil
	}
	var err error
	need := r.memory()
	if r.grant, err = c.server.budget.acquire(ctx, &c.share, need); err != nil || need == 0 {
		return err
	}
	r.payload = getBuffer(need)
	if r.command == cmdWrite {
		return c.fill(ctx, r.payload.data[:r.length])
	}
	return nil
}

// perform does a request and sends its reply.
func (c *conn) perform(r *request) {
	defer c.inFlight.Done()
	if r.err == 0 {
		c.execute(r)
	}
	c.encode(r)
	c.send(r)
}

// execute lets the export do what was asked for. Memory that the reply does not need is given back before it.
func (c *conn) execute(r *request) {
	err := c.ask(r)
	if r.command == cmdWrite || err != nil {
		c.forget(r)
	}
	if err == nil && r.flags&cmdFlagFUA != 0 && rules[r.command].writes {
		err = c.flush()
	}
	if err == nil {
		return
	}
	if r.err = errnoOf(err); r.err != errNotSup {
		c.failed(r.header, err)
	}
}

// ask is the one call of the export.
func (c *conn) ask(r *request) error {
	off, n := int64(r.offset), int64(r.length)
	if n == 0 && r.command != cmdFlush {
		return nil
	}
	switch r.command {
	case cmdRead:
		return c.read(r)
	case cmdWrite:
		return c.write(r)
	case cmdFlush:
		return c.flush()
	case cmdTrim:
		if err := c.volume.Trim(off, n); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return nil
	case cmdWriteZeroes:
		return c.zero(r)
	default:
		return c.blockStatus(r)
	}
}

func (c *conn) read(r *request) error {
	data := r.payload.data[:r.length]
	n, err := c.volume.ReadAt(data, int64(r.offset))
	if n == len(data) && (err == nil || errors.Is(err, io.EOF)) {
		r.content = data
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (c *conn) write(r *request) error {
	data := r.payload.data[:r.length]
	n, err := c.volume.WriteAt(data, int64(r.offset))
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	return err
}

func (c *conn) zero(r *request) error {
	fast := r.flags&cmdFlagFastZero != 0
	err := c.volume.Zero(int64(r.offset), int64(r.length),
		ZeroOptions{KeepSpace: r.flags&cmdFlagNoHole != 0, Fast: fast})
	if fast && errors.Is(err, errors.ErrUnsupported) {
		return errNotSup
	}
	return err
}

// flush is EIO for whatever reason it failed, space included: what was written before may be lost.
func (c *conn) flush() error {
	if err := c.volume.flush(); err != nil {
		return fmt.Errorf("%w: %w", errIO, err)
	}
	return nil
}

// errGap is an answer of Extents that does not say what was asked.
var errGap = errors.New("the extents leave a gap")

// blockStatus describes the range from its start, in as many descriptors as a reply may have.
func (c *conn) blockStatus(r *request) error {
	limit := maxDescriptors
	if r.flags&cmdFlagReqOne != 0 {
		limit = 1
	}
	d := descriptors{raw: r.payload.data[:0], limit: limit}
	at, end := int64(r.offset), int64(r.offset)+int64(r.length)
	for e, err := range c.volume.Extents(at, end-at) {
		if err != nil {
			return err
		}
		if e.Offset != at || e.Length <= 0 || e.Length > end-at {
			return errGap
		}
		state, known := stateOf(e.Kind)
		if !known {
			return fmt.Errorf("an extent of kind %d: %w", e.Kind, errGap)
		}
		if !d.add(uint32(e.Length), state) {
			break
		}
		at = e.End()
	}
	if at == int64(r.offset) {
		return errGap
	}
	r.content = d.raw
	return nil
}

func stateOf(k disk.Kind) (state uint32, known bool) {
	switch k {
	case disk.Data:
		return 0, true
	case disk.Zero:
		return stateZero, true
	case disk.Unmapped:
		return stateHole | stateZero, true
	default:
		return 0, false
	}
}
