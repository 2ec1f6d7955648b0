package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"vmreplica/internal/failure"
)

// maxAnswer bounds one answer with the events before it, in bytes. A node takes about 2 KiB.
const maxAnswer = 4 << 20

// client is a connection to one monitor. It is for one goroutine.
type client struct {
	conn    net.Conn
	limit   *io.LimitedReader
	decoder *json.Decoder
	last    int // the id of the last command
	release func() bool
}

// message is whatever a monitor sends; those that are neither greeting nor answer are events.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	Return json.RawMessage `json:"return"`
	Error  *commandError   `json:"error"`
	ID     *int            `json:"id"`
}

// commandError is a command's that was not carried out.
type commandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *commandError) Error() string { return e.Class + ": " + e.Desc }

// dial connects and negotiates. Once ctx is done everything fails; the client is to be closed whatever becomes of ctx.
func dial(ctx context.Context, socket string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, limit: &io.LimitedReader{R: conn}}
	c.decoder = json.NewDecoder(c.limit)
	// A deadline that has passed ends a read or write that waits; that it cannot be set means that conn is closed.
	c.release = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if err := c.negotiate(); err != nil {
		c.close()
		return nil, because(ctx, err)
	}
	return c, nil
}

// close ends the connection; there is nothing that could be lost.
func (c *client) close() {
	c.release()
	_ = c.conn.Close()
}

func (c *client) negotiate() error {
	c.limit.N = maxAnswer
	greeting, err := c.next()
	if err != nil {
		return err
	}
	if greeting.QMP == nil {
		return errors.New("it does not greet as a QEMU monitor does")
	}
	return c.execute("qmp_capabilities", nil, &struct{}{})
}

// execute carries out a command and reads into answer what it returns. A command that QEMU refuses is a *commandError.
func (c *client) execute(command string, arguments, answer any) error {
	c.last++
	err := json.NewEncoder(c.conn).Encode(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, c.last})
	if err != nil {
		return err
	}
	c.limit.N = maxAnswer
	for {
		m, err := c.next()
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case m.ID == nil || *m.ID != c.last:
			continue
		case m.Error != nil:
			return m.Error
		case m.Return == nil:
			return fmt.Errorf("%s: neither an answer nor an error", command)
		}
		if err := json.Unmarshal(m.Return, answer); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		return nil
	}
}

func (c *client) next() (message, error) {
	var m message
	err := c.decoder.Decode(&m)
	if err != nil && c.limit.N <= 0 {
		return m, fmt.Errorf("it sends more than %d MiB", maxAnswer>>20)
	}
	return m, err
}

// because is err, or that ctx was done, which is what the error of a passed deadline means here.
func because(ctx context.Context, err error) error {
	switch cause := ctx.Err(); {
	case cause == nil:
		return err
	case errors.Is(cause, context.DeadlineExceeded):
		return failure.New(failure.Unreachable, failure.ReasonDeadline, "the machine's monitor does not answer in time: %w", cause).
			Try("A monitor serves one client at a time: give the agent a -qmp of its own.")
	default:
		return failure.New(failure.Cancelled, failure.ReasonCancelled, "the machine's monitor was not asked: %w", cause)
	}
}
