package nbd_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// The protocol's numbers as its document has them, apart from the server's own.
const (
	optExportName, optAbort, optList, optStartTLS, optInfo, optGo = 1, 2, 3, 5, 6, 7
	optStructured, optListMeta, optSetMeta, optExtendedHeaders    = 8, 9, 10, 11

	repAck, repServer, repInfo, repMeta                = 1, 2, 3, 4
	errUnsup, errPolicy, errInvalid, errUnknown uint32 = 1<<31 + 1, 1<<31 + 2, 1<<31 + 3, 1<<31 + 6

	read, write, disc, flush, trim, cache, zeroes, status = 0, 1, 2, 3, 4, 5, 6, 7
	fua, noHole, df, reqOne, fastZero                     = 1, 2, 4, 8, 16

	eperm, eio, einval, enospc, eoverflow, enotsup = 1, 5, 22, 28, 75, 95
)

// client speaks the protocol byte by byte.
type client struct {
	t testing.TB
	net.Conn
	structured bool
}

// dial connects and exchanges flags.
func dial(t testing.TB, r *running) *client {
	t.Helper()
	c := connect(t, r)
	c.greet(3)
	return c
}

// connect leaves the greeting unread.
func connect(t testing.TB, r *running) *client {
	t.Helper()
	socket, err := net.Dial("unix", r.socket)
	must(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	must(t, socket.SetDeadline(time.Now().Add(patience)))
	return &client{t: t, Conn: socket}
}

func (c *client) greet(flags uint32) {
	c.t.Helper()
	hello := c.take(18)
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" || binary.BigEndian.Uint16(hello[16:]) != 3 {
		c.t.Fatalf("greeted with %x", hello)
	}
	c.put(flags)
}

// put sends integers and bytes, big-endian.
func (c *client) put(values ...any) {
	c.t.Helper()
	if _, err := c.Write(pack(values...)); err != nil {
		c.t.Fatal(err)
	}
}

func pack(values ...any) []byte {
	var b []byte
	for _, value := range values {
		switch v := value.(type) {
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, v)
		case []byte:
			b = append(b, v...)
		case string:
			b = append(b, v...)
		default:
			panic(fmt.Sprintf("cannot pack %T", value))
		}
	}
	return b
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// closed checks that the server ended the connection and sent nothing more.
func (c *client) closed() {
	c.t.Helper()
	n, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection goes on: %d bytes, %v", n, err)
	}
}

// optionReply is one reply to an option.
type optionReply struct {
	kind uint32
	data []byte
}

// option sends one and returns all replies to it.
func (c *client) option(option uint32, data ...any) []optionReply {
	c.t.Helper()
	packed := pack(data...)
	c.put("IHAVEOPT", option, uint32(len(packed)), packed)
	var replies []optionReply
	for {
		head := c.take(20)
		if binary.BigEndian.Uint64(head) != 0x3e889045565a9 || binary.BigEndian.Uint32(head[8:]) != option {
			c.t.Fatalf("option %d answered with %x", option, head)
		}
		r := optionReply{kind: binary.BigEndian.Uint32(head[12:])}
		r.data = c.take(int(binary.BigEndian.Uint32(head[16:])))
		replies = append(replies, r)
		if r.kind == repAck || r.kind >= 1<<31 {
			return replies
		}
	}
}

// last is the final reply to an option.
func (c *client) last(option uint32, data ...any) uint32 {
	c.t.Helper()
	replies := c.option(option, data...)
	return replies[len(replies)-1].kind
}

func named(name string) []byte { return pack(uint32(len(name)), name) }

func queries(name string, texts ...string) []byte {
	b := pack(named(name), uint32(len(texts)))
	for _, text := range texts {
		b = append(b, named(text)...)
	}
	return b
}

// enter goes to the transmission of the export "disk", structured with base:allocation or simple.
func enter(t testing.TB, r *running, structured bool) *client {
	t.Helper()
	c := dial(t, r)
	c.structured = structured
	if structured {
		c.expectAck(optStructured)
		c.expectAck(optSetMeta, queries("disk", "base:allocation"))
	}
	c.expectAck(optGo, named("disk"), uint16(0))
	return c
}

func (c *client) expectAck(option uint32, data ...any) {
	c.t.Helper()
	if kind := c.last(option, data...); kind != repAck {
		c.t.Fatalf("option %d answered %#x", option, kind)
	}
}

// request is one on the wire.
type request struct {
	command, flags uint16
	cookie         uint64
	offset         uint64
	length         uint32
	payload        []byte
}

func (r request) packed() []byte {
	return pack(uint32(0x25609513), r.flags, r.command, r.cookie, r.offset, r.length, r.payload)
}

// response is the whole reply to a request.
type response struct {
	cookie  uint64
	err     uint32
	message string
	data    []byte // of a READ
	status  []byte // of a BLOCK_STATUS, without the context's id
}

// receive reads a reply; expect is the length of the data if it is a READ's that succeeds.
func (c *client) receive(expect uint32) response {
	c.t.Helper()
	switch magic := binary.BigEndian.Uint32(c.take(4)); magic {
	case 0x67446698:
		return c.receiveSimple(expect)
	case 0x668e33ef:
		return c.receiveChunk()
	default:
		c.t.Fatalf("a reply begins with %#x", magic)
		return response{}
	}
}

func (c *client) receiveSimple(expect uint32) response {
	c.t.Helper()
	head := c.take(12)
	r := response{err: binary.BigEndian.Uint32(head), cookie: binary.BigEndian.Uint64(head[4:])}
	if r.err == 0 && !c.structured {
		r.data = c.take(int(expect))
	}
	return r
}

func (c *client) receiveChunk() response {
	c.t.Helper()
	head := c.take(16)
	r := response{cookie: binary.BigEndian.Uint64(head[4:])}
	payload := c.take(int(binary.BigEndian.Uint32(head[12:])))
	if !c.structured || binary.BigEndian.Uint16(head) != 1 {
		c.t.Fatalf("a chunk with head %x", head)
	}
	switch kind := binary.BigEndian.Uint16(head[2:]); kind {
	case 0:
	case 1:
		r.data = payload[8:]
	case 5:
		if binary.BigEndian.Uint32(payload) != 1 {
			c.t.Fatalf("context %d", binary.BigEndian.Uint32(payload))
		}
		r.status = payload[4:]
	case 1<<15 + 1:
		r.err = binary.BigEndian.Uint32(payload)
		r.message = string(payload[6:])
		if int(binary.BigEndian.Uint16(payload[4:])) != len(r.message) || r.message == "" {
			c.t.Fatalf("an error chunk with payload %x", payload)
		}
	default:
		c.t.Fatalf("a chunk of type %d", kind)
	}
	return r
}

// do sends a request and reads its reply.
func (c *client) do(r request) response {
	c.t.Helper()
	r.cookie = r.offset ^ 0x5eed
	c.put(r.packed())
	var expect uint32
	if r.command == read {
		expect = r.length
	}
	answer := c.receive(expect)
	if answer.cookie != r.cookie {
		c.t.Fatalf("cookie %#x answered with %#x", r.cookie, answer.cookie)
	}
	return answer
}

// inStep checks that the connection still understands: a read works and gives length bytes.
func (c *client) inStep() {
	c.t.Helper()
	if r := c.do(request{command: read, length: 512}); r.err != 0 || len(r.data) != 512 {
		c.t.Fatalf("a read is answered %d with %d bytes", r.err, len(r.data))
	}
}
