package transport

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/stats"
)

// WireBytes counts what calls move: messages as they are sent, with gRPC's framing and the headers received. What
// HTTP/2 and TLS add, less than one in a hundred of full frames, is not in it.
type WireBytes struct {
	sent, received atomic.Int64
	outer          *WireBytes
}

// Sent is the bytes sent so far.
func (w *WireBytes) Sent() int64 { return w.sent.Load() }

// Received is the bytes received so far.
func (w *WireBytes) Received() int64 { return w.received.Load() }

func (w *WireBytes) add(sent, received int) {
	for ; w != nil; w = w.outer {
		w.sent.Add(int64(sent))
		w.received.Add(int64(received))
	}
}

type wireKey struct{}

// CountWire makes a context whose calls, on connections made by Dial, are counted. A count within a count adds to
// both.
func CountWire(ctx context.Context) (context.Context, *WireBytes) {
	outer, _ := ctx.Value(wireKey{}).(*WireBytes)
	count := &WireBytes{outer: outer}
	return context.WithValue(ctx, wireKey{}, count), count
}

// wireHandler fills the counts.
type wireHandler struct{}

// TagRPC implements stats.Handler.
func (wireHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (wireHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	count, ok := ctx.Value(wireKey{}).(*WireBytes)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.OutPayload:
		count.add(event.WireLength, 0)
	case *stats.InPayload:
		count.add(0, event.WireLength)
	case *stats.InHeader:
		count.add(0, event.WireLength)
	case *stats.InTrailer:
		count.add(0, event.WireLength)
	}
}

// TagConn implements stats.Handler.
func (wireHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (wireHandler) HandleConn(context.Context, stats.ConnStats) {}
