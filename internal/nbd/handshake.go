package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// maxOptionLen is the longest data of an option, in bytes. A client that sends more is cut off.
const maxOptionLen = 64 << 10

// negotiate leads a new connection to the transmission: it returns nil with c.volume set, errGone when the client
// left in peace, or why the connection ends.
func (c *conn) negotiate(ctx context.Context) error {
	if err := c.handshakeUntil(ctx, time.Now().Add(c.server.options.HandshakeTimeout)); err != nil {
		return err
	}
	if err := c.greet(); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	for c.volume == nil {
		if err := c.haggle(); err != nil {
			return err
		}
	}
	return c.handshakeUntil(ctx, time.Time{})
}

func (c *conn) handshakeUntil(ctx context.Context, t time.Time) error {
	if err := c.socket.SetDeadline(t); err != nil {
		return err
	}
	return ctx.Err() // as in readUntil
}

// greet exchanges flags. A client that does not set FIXED_NEWSTYLE is served all the same.
func (c *conn) greet() error {
	hello := binary.BigEndian.AppendUint64(nil, magicInit)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := c.socket.Write(hello); err != nil {
		return err
	}
	var raw [4]byte
	if _, err := io.ReadFull(c.in, raw[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(raw[:])
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("client flags %#x: %w", flags, errProtocol)
	}
	c.noZeroes = flags&uint32(flagNoZeroes) != 0
	return nil
}

// haggle reads one option and answers it.
func (c *conn) haggle() error {
	var head [optionLen]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return fmt.Errorf("read an option: %w", err)
	}
	opt := option(binary.BigEndian.Uint32(head[8:]))
	length := binary.BigEndian.Uint32(head[12:])
	if binary.BigEndian.Uint64(head[:]) != magicOption || length > maxOptionLen {
		return fmt.Errorf("option %d of %d bytes: %w", opt, length, errProtocol)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return fmt.Errorf("read option %d of %d bytes: %w", opt, length, err)
	}
	if opt == optExportName {
		return c.exportName(data)
	}
	a := answer{opt: opt}
	c.decide(&a, data)
	if _, err := c.socket.Write(a.raw); err != nil {
		return fmt.Errorf("answer option %d: %w", opt, err)
	}
	if opt == optAbort {
		return errGone
	}
	return nil
}

// decide makes the answer to an option other than EXPORT_NAME.
func (c *conn) decide(a *answer, data []byte) {
	switch a.opt {
	case optAbort:
		a.add(repAck)
	case optList:
		c.list(a, data)
	case optInfo, optGo:
		c.info(a, data)
	case optStructuredReply:
		if len(data) > 0 {
			a.add(repErrInvalid)
			return
		}
		c.structured = true
		a.add(repAck)
	case optListMetaContext, optSetMetaContext:
		c.metaContext(a, data)
	default:
		a.add(repErrUnsup)
	}
}

// answer is the replies to one option.
type answer struct {
	opt option
	raw []byte
}

// add appends a reply whose data is the parts together.
func (a *answer) add(t repType, parts ...[]byte) {
	length := 0
	for _, part := range parts {
		length += len(part)
	}
	a.raw = binary.BigEndian.AppendUint64(a.raw, magicRep)
	a.raw = binary.BigEndian.AppendUint32(a.raw, uint32(a.opt))
	a.raw = binary.BigEndian.AppendUint32(a.raw, uint32(t))
	a.raw = binary.BigEndian.AppendUint32(a.raw, uint32(length))
	for _, part := range parts {
		a.raw = append(a.raw, part...)
	}
}

// exportName enters the transmission or ends the connection: there is no other answer to EXPORT_NAME.
func (c *conn) exportName(data []byte) error {
	name, ok := validName(data)
	if !ok {
		return fmt.Errorf("the name of an export: %w", errProtocol)
	}
	if err := c.enter(name); err != nil {
		return err
	}
	reply := binary.BigEndian.AppendUint64(nil, uint64(c.size))
	reply = binary.BigEndian.AppendUint16(reply, c.transmissionFlags(c.readOnly))
	if !c.noZeroes {
		reply = append(reply, make([]byte, noZeroesLen)...)
	}
	if _, err := c.socket.Write(reply); err != nil {
		return fmt.Errorf("answer EXPORT_NAME: %w", err)
	}
	return nil
}

// enter makes name's export the connection's own.
func (c *conn) enter(name string) error {
	export, err := c.server.options.Lookup(name)
	if err != nil {
		return fmt.Errorf("find export %q: %w", name, err)
	}
	v, err := c.server.volumes.take(export)
	if err != nil {
		c.server.options.Release(export)
		return err
	}
	c.volume, c.size, c.readOnly = v, export.Size(), export.ReadOnly()
	c.allocation = c.allocation && c.allocationOf == name
	c.log = c.log.With("export", name)
	return nil
}

// transmissionFlags say what the client may send.
func (c *conn) transmissionFlags(readOnly bool) uint16 {
	flags := flagHasFlags | flagSendFlush | flagSendFUA | flagCanMultiConn
	if readOnly {
		flags |= flagReadOnly
	} else {
		flags |= flagSendTrim | flagSendWriteZeroes | flagSendFastZero
	}
	if c.structured {
		flags |= flagSendDF
	}
	return flags
}
