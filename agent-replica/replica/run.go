package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"vmreplica/agent-replica/authorization"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/points"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/api"
	"vmreplica/internal/daemon"
	"vmreplica/internal/event"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// stopBound is how long calls may go on after the agent was asked to end.
const stopBound = 3 * time.Second

// Run is the agent: it opens what is on disk, finishes what was interrupted and serves until ctx ends.
func Run(ctx context.Context, config *Config, host *daemon.Host) error {
	credentials, err := transport.LoadCredentials(config.TLSDir, host.Log)
	if err != nil {
		return err
	}
	if role := credentials.Identity().Role; role != transport.RoleReplica {
		return fmt.Errorf("the certificate in %s is of role %s; a replica agent needs one of role replica",
			config.TLSDir, role)
	}
	store, err := state.Open(filepath.Join(config.StateDir, "replica.db"))
	if err != nil {
		return err
	}
	files, err := storage.Open(config.StorageDir, config.Devices)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	if err := files.Claim(); err != nil {
		return errors.Join(err, files.Close(), store.Close())
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", config.Listen)
	if err == nil {
		err = serve(ctx, listener, host, parts{
			credentials: credentials, store: store, files: files, nbdSocket: config.NBDSocket,
		})
	}
	return errors.Join(err, files.Close(), store.Close())
}

// parts are what the agent is put together from.
type parts struct {
	credentials *transport.Credentials
	store       state.Store
	files       *storage.Storage
	// nbdSocket is where points are exported; empty for nowhere.
	nbdSocket string
}

// serve runs the agent on the listener, which it closes, until ctx ends.
func serve(ctx context.Context, listener net.Listener, host *daemon.Host, p parts) error {
	agent, err := assemble(host, p)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	host.Log.Info("the API is served", "address", listener.Addr().String(),
		"identity", p.credentials.Identity().String(), "storage", p.files.Path("."))
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		p.credentials.Watch(ctx)
		return nil
	})
	work.Go(func() error { return agent.merger.Run(ctx) })
	work.Go(func() error { return agent.keeper.Run(ctx) })
	work.Go(func() error { return agent.observer.Run(ctx) })
	work.Go(func() error { return agent.receiver.Run(ctx) })
	if agent.exports != nil {
		work.Go(func() error { return agent.exports.Run(ctx) })
	}
	work.Go(func() error { return agent.server.Serve(listener) })
	work.Go(func() error {
		<-ctx.Done()
		agent.receiver.Close()
		transport.Stop(agent.server, stopBound)
		return nil
	})
	host.Ready()
	return work.Wait()
}

// agent is the rooms, put together.
type agent struct {
	merger   *merge.Merger
	keeper   *points.Keeper
	exports  *exports
	observer *observer
	receiver Receiver
	server   *grpc.Server
}

func assemble(host *daemon.Host, p parts) (*agent, error) {
	events, err := event.Open(p.store, host.Log, time.Now)
	if err != nil {
		return nil, err
	}
	daemon.RecordCertificates(p.credentials, events, host.Log)
	table := chain.NewTable(p.store, events)
	registry := chain.NewRegistry(table, p.files)
	book := authorization.NewBook(p.store, p.files.CheckDevice)
	s := services{
		parts: p, events: events, registry: registry, book: book, gate: &Gate{table: table, book: book},
		used: &usage{table: table, storage: p.files}, obstacles: newObstacles(p.files, events, host.Log),
	}
	merger := merge.New(merge.Config{Registry: registry, Space: p.files, Events: events, Log: host.Log})
	receiver := receive.New(receive.Config{
		Registry: registry, Space: p.files, Gate: s.gate, Log: host.Log, Limits: receive.DefaultLimits(),
		CheckRoom:  func(record chain.Record) error { return s.used.checkQuota(book, record) },
		CheckBegin: s.used.checkBegin, Obstacles: s.obstacles,
	})
	s.gate.raised = receiver.Supersede
	a := &agent{
		merger: merger, keeper: points.New(points.Config{Registry: registry, Log: host.Log}), receiver: receiver, observer: newObserver(registry, merger, book, s.obstacles, host.Log),
		server: transport.NewServer(transport.ServerConfig{
			Credentials: p.credentials, Translate: api.Status, Log: host.Log,
		}),
	}
	if err := host.Registry.Register(&metrics{observer: a.observer, storage: p.files}); err != nil {
		return nil, err
	}
	host.AddCheck("storage", func(context.Context) error {
		_, err := p.files.Free()
		return err
	})
	s.register(a)
	a.exports, err = openExports(p.nbdSocket, registry, host.Log)
	return a, err
}

// services are what the API is served from.
type services struct {
	parts
	events    *event.Log
	registry  *chain.Registry
	book      *authorization.Book
	gate      *Gate
	used      *usage
	obstacles *obstacles
}

func (s services) register(a *agent) {
	requests := newRequests(s.store)
	transfers := &transferService{
		gate: s.gate, registry: s.registry, storage: s.files, merger: a.merger, usage: s.used, receiver: a.receiver,
		obstacles: s.obstacles, speeds: measureSpeeds(),
	}
	vmreplicav1.RegisterTransferServiceServer(a.server, transfers)
	vmreplicav1.RegisterReplicationServiceServer(a.server, &replicationService{
		registry: s.registry, storage: s.files, observer: a.observer, requests: requests, remove: transfers.remove,
	})
	vmreplicav1.RegisterFailoverServiceServer(a.server, &failoverService{
		registry: s.registry, storage: s.files, merger: a.merger, receiver: a.receiver, requests: requests,
	})
	vmreplicav1.RegisterRecoveryPointServiceServer(a.server, &pointService{
		registry: s.registry, storage: s.files, requests: requests,
	})
	vmreplicav1.RegisterResyncServiceServer(a.server, resyncService{})
	vmreplicav1.RegisterAuthorizationServiceServer(a.server, &authorizationService{
		book: s.book, usage: s.used, requests: requests, events: s.events, credentials: s.credentials,
		receiver: a.receiver,
	})
	vmreplicav1.RegisterEventServiceServer(a.server, &eventService{log: s.events})
	vmreplicav1.RegisterAgentServiceServer(a.server, &agentService{
		credentials: s.credentials, started: time.Now(),
	})
}
