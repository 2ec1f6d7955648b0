package qmp

import (
	"context"
	"errors"
	"io"
	"net"

	"vmreplica/internal/failure"
)

// Use is what a machine does with an export.
type Use uint8

// Uses.
const (
	// Absent is an export that the machine has not attached.
	Absent Use = iota
	// Unused is attached, and no device writes to it or to what lies above it.
	Unused
	// Written is what a device of the guest writes to, through filters perhaps.
	Written
	// Snapshotted lies below the node that a device writes to: an external snapshot. What the guest writes goes past it.
	Snapshotted
)

var useNames = [...]string{"absent", "unused", "written", "snapshotted"}

func (u Use) String() string {
	if int(u) < len(useNames) {
		return useNames[u]
	}
	return "unknown"
}

// Found is what became of one export.
type Found struct {
	Export string
	Use    Use
	// Above is the node that is written in its place, and File that node's file, when Use is Snapshotted.
	Above, File string
}

// Snapshots asks the monitor at socket what its machine does with each of the exports, named as the agent's NBD server
// names them, and answers in their order. Of an export that is attached more than once, Written goes before
// Snapshotted.
//
// Failures: PATH_OUTSIDE for a socket that is not allowed, UNSUPPORTED for a QEMU that does not tell its block graph,
// DEADLINE_EXCEEDED and NOT_FOUND for one that does not answer, PROTOCOL_VIOLATION for what is no QEMU.
func (a Allowed) Snapshots(ctx context.Context, socket string, exports []string) ([]Found, error) {
	path, err := a.resolve(socket)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, path)
	if err != nil {
		return nil, explained(socket, err)
	}
	defer c.close()
	var nodes []namedNode
	var drawn blockGraph
	err = c.execute("query-named-block-nodes", map[string]bool{"flat": true}, &nodes)
	if err == nil {
		err = c.execute("x-debug-query-block-graph", nil, &drawn)
	}
	if err != nil {
		return nil, explained(socket, because(ctx, err))
	}
	return find(exports, nodes, newGraph(drawn)), nil
}

// explained is err as an operator needs it.
func explained(socket string, err error) error {
	var known *failure.Error
	var refused *commandError
	var network net.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &refused):
		return failure.New(failure.Unsupported, failure.ReasonUnsupported,
			"the machine's QEMU does not tell its block graph: %w", refused).Try("QEMU 5.0 and newer do.")
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unreachable(socket, err)
	default:
		return failure.New(failure.Unreachable, failure.ReasonProtocol, "what answers at %s is not QEMU's monitor: %w", socket, err).
			Try("Name the socket of the machine's -qmp unix:PATH,server=on,wait=off.")
	}
}
