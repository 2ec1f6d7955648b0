package nbd

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// reply is what goes on the wire: a head, then content.
type reply struct {
	head    [structuredLen + 8]byte
	headLen int
	content []byte
}

// encode makes the head of a request's reply. Where structured replies were negotiated, what has content and
// what is an error is structured; all else is simple.
func (c *conn) encode(r *request) {
	switch {
	case !c.structured:
		if r.err != 0 {
			r.content = nil
		}
		r.simple(r.cookie, r.err)
	case r.err != 0:
		r.content = []byte(r.err.Error())
		extra := r.chunk(replyError, r.cookie, 6)
		binary.BigEndian.PutUint32(extra, uint32(r.err))
		binary.BigEndian.PutUint16(extra[4:], uint16(len(r.content)))
	case r.command == cmdRead && len(r.content) > 0:
		binary.BigEndian.PutUint64(r.chunk(replyOffsetData, r.cookie, 8), r.offset)
	case r.command == cmdRead:
		r.chunk(replyNone, r.cookie, 0)
	case r.command == cmdBlockStatus:
		binary.BigEndian.PutUint32(r.chunk(replyBlockStatus, r.cookie, 4), contextID)
	default:
		r.simple(r.cookie, 0)
	}
}

func (r *reply) simple(cookie uint64, err errno) {
	binary.BigEndian.PutUint32(r.head[:], magicSimple)
	binary.BigEndian.PutUint32(r.head[4:], uint32(err))
	binary.BigEndian.PutUint64(r.head[8:], cookie)
	r.headLen = simpleLen
}

// chunk begins the only chunk of a reply and answers where its extra bytes, which precede the content, go.
func (r *reply) chunk(kind uint16, cookie uint64, extra int) []byte {
	binary.BigEndian.PutUint32(r.head[:], magicStructured)
	binary.BigEndian.PutUint16(r.head[4:], replyFlagDone)
	binary.BigEndian.PutUint16(r.head[6:], kind)
	binary.BigEndian.PutUint64(r.head[8:], cookie)
	binary.BigEndian.PutUint32(r.head[16:], uint32(extra+len(r.content)))
	r.headLen = structuredLen + extra
	return r.head[structuredLen:r.headLen]
}

// descriptors are the extents of a BLOCK_STATUS; neighbours of one state become one.
type descriptors struct {
	raw   []byte
	limit int
	last  uint32 // the length of the last one
	state uint32 // and its state
}

// add appends an extent; false when there is no room. The sum of lengths is that of a request, so it fits 32 bits.
func (d *descriptors) add(n, state uint32) bool {
	count := len(d.raw) / descriptorLen
	if count > 0 && d.state == state {
		d.last += n
		binary.BigEndian.PutUint32(d.raw[len(d.raw)-descriptorLen:], d.last)
		return true
	}
	if count == d.limit {
		return false
	}
	d.last, d.state = n, state
	d.raw = binary.BigEndian.AppendUint32(d.raw, n)
	d.raw = binary.BigEndian.AppendUint32(d.raw, state)
	return true
}

// sender puts replies on the socket. Whoever finds nobody at it sends its own and all that come meanwhile, many in
// one system call.
type sender struct {
	mu     sync.Mutex
	queue  []*request // guarded by mu
	busy   bool       // guarded by mu
	broken bool       // set by the sending one: the client takes no more

	// Of the sending one alone.
	batch  []*request
	pieces net.Buffers
	rest   net.Buffers
}

// send hands a reply over and answers its request, here or by who is sending.
func (c *conn) send(r *request) {
	o := &c.out
	o.mu.Lock()
	o.queue = append(o.queue, r)
	if o.busy {
		o.mu.Unlock()
		return
	}
	o.busy = true
	for len(o.queue) > 0 {
		o.batch, o.queue = o.queue, o.batch[:0]
		o.mu.Unlock()
		c.sendBatch()
		o.mu.Lock()
	}
	o.busy = false
	o.mu.Unlock()
}

// sendBatch writes the batch and releases its requests. When that fails the connection is of no use: the reader
// is woken by its end.
func (c *conn) sendBatch() {
	o := &c.out
	if !o.broken {
		if err := c.writeBatch(); err != nil {
			o.broken = true
			c.cut()
		}
	}
	for _, r := range o.batch {
		c.release(r)
	}
}

// writeBatch writes the batch with one call where the socket takes it. A client that stands still is waited for
// unless others wait for the memory.
func (c *conn) writeBatch() error {
	o := &c.out
	o.pieces = o.pieces[:0]
	held := 0
	for _, r := range o.batch {
		o.pieces = append(o.pieces, r.head[:r.headLen])
		if len(r.content) > 0 {
			o.pieces = append(o.pieces, r.content)
			held += len(r.content)
		}
	}
	o.rest = o.pieces
	if held > 0 {
		if err := c.socket.SetWriteDeadline(time.Now().Add(c.allowed(held))); err != nil {
			return err
		}
	}
	for {
		_, err := o.rest.WriteTo(c.socket)
		if !errors.Is(err, os.ErrDeadlineExceeded) || held > 0 && c.server.budget.contended(&c.share) {
			return err
		}
		if err := c.socket.SetWriteDeadline(time.Now().Add(c.allowed(held))); err != nil {
			return err
		}
	}
}

// forget gives a request's memory back.
func (c *conn) forget(r *request) {
	if r.payload != nil {
		r.payload.putBack()
	}
	c.server.budget.release(&c.share, r.grant)
	r.payload, r.content, r.grant = nil, nil, grant{}
}

// release ends a request.
func (c *conn) release(r *request) {
	c.forget(r)
	c.slots <- r
}
