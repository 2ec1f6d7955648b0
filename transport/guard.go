package transport

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// guard stands before every handler: who may call, what its error becomes, what its panic becomes.
type guard struct {
	table     func() accessTable
	translate func(error) error
	log       *slog.Logger
}

func (g *guard) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (response any, err error) {
	defer func() { err = g.recovered(ctx, info.FullMethod, recover(), err) }()
	if err := g.table().authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	response, err = handler(ctx, request)
	return response, g.answer(ctx, info.FullMethod, err)
}

func (g *guard) stream(
	service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	ctx := stream.Context()
	defer func() { err = g.recovered(ctx, info.FullMethod, recover(), err) }()
	if err := g.table().authorize(ctx, info.FullMethod); err != nil {
		return err
	}
	return g.answer(ctx, info.FullMethod, handler(service, stream))
}

// answer is the status error of a handler's error. An error that nobody has classed and that comes of a context
// is a cancellation or a deadline, not a fault.
func (g *guard) answer(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	answer := err
	if g.translate != nil {
		answer = g.translate(err)
	}
	if code := status.Code(answer); code != codes.Unknown && code != codes.Internal {
		return answer
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	g.log.Error("call failed", "method", method, "caller", callerName(ctx), "error", err)
	return answer
}

// recovered turns a panic into INTERNAL. The stack is for the log alone.
func (g *guard) recovered(ctx context.Context, method string, panicked any, err error) error {
	if panicked == nil {
		return err
	}
	g.log.Error("call panicked", "method", method, "caller", callerName(ctx), "panic", panicked,
		"stack", string(debug.Stack()))
	return status.Error(codes.Internal, "internal fault; the agent's log has the details")
}

func callerName(ctx context.Context) string {
	caller, ok := PeerIdentity(ctx)
	if !ok {
		return "unknown"
	}
	return caller.String()
}
