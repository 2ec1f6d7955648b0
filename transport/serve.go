package transport

import (
	"crypto/x509"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

// ServerConfig is how a server serves.
type ServerConfig struct {
	Credentials *Credentials
	// Translate makes a status error of a handler's error; nil leaves it as it is.
	Translate func(error) error
	Log       *slog.Logger
	// Health answers grpc.health.v1; nil means one that always serves.
	Health *health.Server
	// MaxStreams is how many calls one connection may have open; 0 means DefaultMaxStreams.
	MaxStreams uint32
	// ConnectionTimeout bounds a handshake; 0 means DefaultConnectionTimeout.
	ConnectionTimeout time.Duration
}

// NewServer makes a server that lets in only callers with a certificate of our trust domain and lets them call
// only what their role is allowed. Health and reflection are registered; the caller registers its services before
// it serves.
func NewServer(config ServerConfig) *grpc.Server {
	guard := &guard{log: config.Log, translate: config.Translate}
	own := &handshaker{
		own:   config.Credentials,
		check: peerCheck{usage: x509.ExtKeyUsageClientAuth, roles: allRoles},
		gate:  newHandshakeGate(),
		fails: newFailureLog(config.Log),
	}
	server := grpc.NewServer(append(serverLimits(config),
		grpc.Creds(own),
		grpc.ChainUnaryInterceptor(guard.unary),
		grpc.ChainStreamInterceptor(guard.stream),
	)...)
	guard.table = sync.OnceValue(func() accessTable { return newAccessTable(server.GetServiceInfo()) })
	if config.Health == nil {
		config.Health = health.NewServer()
	}
	grpc_health_v1.RegisterHealthServer(server, config.Health)
	reflection.Register(server)
	return server
}

func serverLimits(config ServerConfig) []grpc.ServerOption {
	if config.MaxStreams == 0 {
		config.MaxStreams = DefaultMaxStreams
	}
	if config.ConnectionTimeout == 0 {
		config.ConnectionTimeout = DefaultConnectionTimeout
	}
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageSize),
		grpc.MaxHeaderListSize(maxHeaderSize),
		grpc.MaxConcurrentStreams(config.MaxStreams),
		grpc.ConnectionTimeout(config.ConnectionTimeout),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(ioBufferSize),
		grpc.WriteBufferSize(ioBufferSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: keepaliveMinimum, PermitWithoutStream: true,
		}),
		grpc.WaitForHandlers(true),
	}
}

// Stop ends a server: no new calls, bound for those that run to end by themselves, then they are cancelled. When
// it returns no handler runs.
func Stop(server *grpc.Server, bound time.Duration) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.GracefulStop()
	}()
	timer := time.NewTimer(bound)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		server.Stop()
		<-ended
	}
}
