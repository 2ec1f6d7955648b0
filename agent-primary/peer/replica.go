// Package peer is the way to a replica: two connections, the conversation of TransferService in the domain's
// words, and nothing decided.
//
// Vocabulary. A Replica is one agent at one address. A Link is a Replica spoken to about one relationship; it is
// what a resync and the relationship know as their other side. Control calls have a connection of their own, so
// that none waits behind the data of a transfer.
//
// Invariants. A connection is made with the first call and again after it was lost. What a replica answers is
// checked before anything is done with it: a number, length or name outside its bounds is a failure with reason
// PROTOCOL_VIOLATION. Every error is a failure; one whose class is Unreachable may have been carried out or not. An
// agent that is believed and is no replica has reason WRONG_ROLE: it was asked nothing.
// A stream that moves no byte for the progress timeout is ended with reason NO_PROGRESS.
//
// Nothing here is kept on disk.
package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// How long a call may take, and how long a stream may move nothing.
const (
	callTimeout            = 30 * time.Second
	changeTimeout          = 5 * time.Minute
	probeTimeout           = 5 * time.Second
	DefaultProgressTimeout = 2 * time.Minute
)

// Config is what all connections of an agent share.
type Config struct {
	// Dial prepares a connection to host:port whose other end must be a replica.
	Dial func(address string) (*grpc.ClientConn, error)
	// Probe goes the way to host:port as Dial would, to say where it ends.
	Probe func(ctx context.Context, address string) (transport.Probed, error)
	// AgentVersion is told to the replica.
	AgentVersion string
	// Speeds are how fast one core computes each proof, in bytes a second.
	Speeds map[blockdiff.Algorithm]int64
	// Pacer bounds what all streams send.
	Pacer *transport.Pacer
	// ProgressTimeout ends a stream that moves nothing; 0 means DefaultProgressTimeout.
	ProgressTimeout time.Duration
	Log             *slog.Logger
}

// Replica is one replica agent. Methods may be called concurrently.
type Replica struct {
	address string
	config  Config

	mu            sync.Mutex
	control, data *grpc.ClientConn // nil until needed; guarded by mu
	failures      int              // calls in a row that did not reach it; guarded by mu
	closed        bool             // guarded by mu
}

func newReplica(address string, config Config) *Replica {
	return &Replica{address: address, config: config}
}

// service is a client on one of the two connections, which is prepared if need be.
func (r *Replica) service(conn **grpc.ClientConn) (vmreplicav1.TransferServiceClient, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, failure.New(failure.Cancelled, failure.ReasonShuttingDown, "the agent is shutting down")
	}
	if *conn == nil {
		made, err := r.config.Dial(r.address)
		if err != nil {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err)
		}
		*conn = made
	}
	return vmreplicav1.NewTransferServiceClient(*conn), nil
}

// call makes one control call and translates its error.
func (r *Replica) call(ctx context.Context, timeout time.Duration,
	do func(context.Context, vmreplicav1.TransferServiceClient) error,
) error {
	client, err := r.service(&r.control)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err = r.translate(ctx, do(ctx, client))
	if err != nil && failure.Find(err).Reason == failure.ReasonReplicaUnreachable {
		if other := r.another(ctx); other != nil {
			return other
		}
	}
	return err
}

// another is the failure that a peer which shakes hands and is no replica makes; nil when it is not that which
// keeps the replica from being reached.
func (r *Replica) another(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := r.config.Probe(ctx, r.address)
	var ended *transport.ProbeError
	if !errors.As(err, &ended) || ended.Step != transport.StepRole {
		return nil
	}
	return failure.New(failure.Precondition, failure.ReasonWrongRole, "no replica answers at %s: %w", r.address, ended.Err).
		Try("Give the address of an agent-replica (vmreplica set VM --replica HOST:PORT), or that agent the certificate "+
			"of a replica. Try: vmreplica test-connection %s", r.address)
}

// translate makes a failure of what a call answered, and notes whether the replica was reached.
func (r *Replica) translate(ctx context.Context, err error) error {
	if err == nil {
		r.reached()
		return nil
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, transport.ErrNoProgress):
		return failure.New(failure.Unreachable, failure.ReasonNoProgress, "the replica %s: %w", r.address, cause)
	case errors.Is(cause, context.DeadlineExceeded):
		return r.unreachable(failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable,
			"the replica %s did not answer in time: %w", r.address, err))
	}
	found := failure.Find(api.FromCall(ctx, err))
	if found.Reason != failure.ReasonReplicaUnreachable {
		r.reached()
		return found
	}
	return r.unreachable(failure.New(found.Class, found.Reason, "the replica %s cannot be reached: %w", r.address, found))
}

func (r *Replica) unreachable(f *failure.Error) error {
	r.mu.Lock()
	r.failures++
	first := r.failures == 1
	r.mu.Unlock()
	if first {
		r.config.Log.Warn("the replica cannot be reached", "replica", r.address, "error", f.Message)
	}
	return f.Try("Try: vmreplica test-connection %s", r.address)
}

func (r *Replica) reached() {
	r.mu.Lock()
	failures := r.failures
	r.failures = 0
	r.mu.Unlock()
	if failures > 0 {
		r.config.Log.Info("the replica is reached again", "replica", r.address, "failed_calls", failures)
	}
}

func (r *Replica) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	var errs []error
	for _, conn := range []*grpc.ClientConn{r.control, r.data} {
		if conn != nil {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// violation is the failure of an answer that no correct replica gives.
func violation(format string, args ...any) error {
	return failure.New(failure.Corrupt, failure.ReasonProtocol, "the replica answered %s", fmt.Sprintf(format, args...)).
		Try("Run the same version on both agents.")
}
