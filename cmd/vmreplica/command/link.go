package command

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// How long and how often an agent is asked.
const (
	// callTimeout bounds one attempt of a call; enabling and removing wait for the other agent.
	callTimeout = 2 * time.Minute
	// attempts is how often a call is made that no agent answers.
	attempts     = 4
	attemptsBase = 100 * time.Millisecond
	attemptsMost = time.Second
)

// link is the way to the asked agent. It is a grpc.ClientConnInterface that repeats what may be repeated and
// remembers who answered.
type link struct {
	address string
	config  transport.DialConfig
	conn    *grpc.ClientConn
	peer    atomic.Pointer[transport.Identity]
}

// connect prepares the way to the agent; nothing is sent yet.
func (v *invocation) connect() error {
	directory := v.tlsDir
	if directory == "" {
		directory = v.Getenv(tlsDirVariable)
	}
	if directory == "" {
		return misused("no certificate is given").
			Try("Give the directory of tls.crt, tls.key and ca.crt: --tls-dir DIR or %s.", tlsDirVariable)
	}
	credentials, err := transport.LoadCredentials(directory, slog.New(slog.DiscardHandler))
	if err != nil {
		return unusable(err)
	}
	l := &link{address: v.serverAddress(), config: transport.DialConfig{Credentials: credentials}}
	if l.conn, err = transport.Dial(l.address, l.config); err != nil {
		return misused("%w", err).Try("Give the agent's address as HOST:PORT with --server or %s.", serverVariable)
	}
	v.agent = l
	return nil
}

// unusable is a failure to load the operator's certificate: one that is not in force permits nothing, and a
// directory without one is a mistake of the command's.
func unusable(err error) error {
	class := failure.Precondition
	if errors.Is(err, fs.ErrNotExist) {
		class = failure.Invalid
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		class = failure.Denied
	}
	return failure.New(class, failure.ReasonNotAuthorized, "%w", err).
		Try("Issue a certificate with: vmreplica pki issue --dir PKI --role operator --name NAME, and give its directory.")
}

func (v *invocation) serverAddress() string {
	if v.server != "" {
		return v.server
	}
	if fromEnvironment := v.Getenv(serverVariable); fromEnvironment != "" {
		return fromEnvironment
	}
	return defaultServer
}

// hangUp closes the connection. Nothing more is learnt from an error.
func (v *invocation) hangUp() {
	if v.agent != nil {
		v.agent.conn.Close()
	}
}

func (v *invocation) replications() vmreplicav1.ReplicationServiceClient {
	return vmreplicav1.NewReplicationServiceClient(v.agent)
}

func (v *invocation) resyncService() vmreplicav1.ResyncServiceClient {
	return vmreplicav1.NewResyncServiceClient(v.agent)
}

// Invoke implements grpc.ClientConnInterface. A call that was not answered is repeated where that is safe.
func (l *link) Invoke(ctx context.Context, method string, args, reply any, options ...grpc.CallOption) error {
	backoff := transport.NewBackoff(attemptsBase, attemptsMost, nil)
	for {
		err := l.once(ctx, method, args, reply, options)
		if err == nil || !lost(err) || !repeatable(args) || backoff.Attempts() == attempts-1 {
			return err
		}
		if sleep(ctx, backoff.Next()) != nil {
			return err
		}
	}
}

func (l *link) once(ctx context.Context, method string, args, reply any, options []grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var who peer.Peer
	err := l.conn.Invoke(ctx, method, args, reply, append(options, grpc.Peer(&who))...)
	l.remember(who)
	return err
}

// NewStream implements grpc.ClientConnInterface.
func (l *link) NewStream(
	ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := l.conn.NewStream(ctx, description, method, options...)
	if err == nil {
		if who, ok := transport.PeerIdentity(stream.Context()); ok {
			l.peer.Store(&who)
		}
	}
	return stream, err
}

func (l *link) remember(who peer.Peer) {
	if info, ok := who.AuthInfo.(transport.AuthInfo); ok {
		l.peer.Store(&info.Identity)
	}
}

// answered is who answered, in words; empty when nobody did.
func (l *link) answered() string {
	who := l.peer.Load()
	if who == nil {
		return ""
	}
	return fmt.Sprintf("the %s agent %s at %s", who.Role, who.Name, l.address)
}

// repeatable says whether an agent that gets a request twice does it once: it only asks, or it has an id.
func repeatable(request any) bool {
	switch request := request.(type) {
	case interface{ GetRequestId() string }:
		return request.GetRequestId() != ""
	default:
		return true
	}
}

// lost says whether a call may be answered at another attempt.
func lost(err error) bool {
	return status.Code(err) == codes.Unavailable &&
		(unanswered(err) || failure.Find(api.FromStatus(err)).Reason == failure.ReasonShuttingDown)
}

// unanswered says whether it was the connection that failed, and not an agent that answered.
func unanswered(err error) bool {
	answered, isStatus := status.FromError(err)
	if !isStatus || answered.Code() != codes.Unavailable && answered.Code() != codes.DeadlineExceeded {
		return false
	}
	for _, detail := range answered.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == api.Domain {
			return false
		}
	}
	return true
}

// sleep waits; an error when ctx ended first.
func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
