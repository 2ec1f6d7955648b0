package transport

import "time"

// What a peer can make this side hold or do.
const (
	// MaxMessageSize bounds one received message, in bytes.
	MaxMessageSize = 8 << 20
	// maxHeaderSize bounds the headers of one call, in bytes.
	maxHeaderSize = 16 << 10
	// DefaultMaxStreams is how many calls one connection may have open.
	DefaultMaxStreams = 256
	// maxConnectionsOfIdentity is how many connections one identity may have open to a server.
	maxConnectionsOfIdentity = 64
	// maxHandshakesOfHost is how many handshakes one host may have open.
	maxHandshakesOfHost = 64

	// streamWindow and connectionWindow are what may be in flight, in bytes. Both are set: setting one alone turns
	// the estimation of the other off and leaves it at 64 KiB.
	streamWindow     = 8 << 20
	connectionWindow = 16 << 20
	// ioBufferSize is the size of gRPC's read and write buffers, in bytes: what cost the least time per byte.
	ioBufferSize = 128 << 10
	// notSentLowat bounds what waits in a socket unsent, in bytes, so that control messages do not queue behind it.
	notSentLowat = 256 << 10
)

// How long things may take.
const (
	// DefaultConnectionTimeout bounds a handshake.
	DefaultConnectionTimeout = 15 * time.Second
	keepaliveTime            = 60 * time.Second
	keepaliveTimeout         = 20 * time.Second
	// keepaliveMinimum is how often a client may ask whether the server is alive.
	keepaliveMinimum = 30 * time.Second
)
