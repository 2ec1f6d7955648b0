package primary

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/peer"
	"vmreplica/agent-primary/qmp"
	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/api"
	"vmreplica/internal/build"
	"vmreplica/internal/daemon"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/durable"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

const (
	// stateFile lies in the state directory.
	stateFile = "primary.db"
	// heldBlocks bounds the blocks that all passes hold while they wait for a refinement, in bytes.
	heldBlocks = 64 << 20
	// stopBound is how long calls that run may take to end.
	stopBound = 5 * time.Second
	// drainBound is how long machines' requests may take to be answered at the end.
	drainBound = 20 * time.Second
	// logDir lies in the state directory and holds the HRLs.
	logDir = "hrl"
	// detachGrace is how long a machine's disks stay open after its last connection.
	detachGrace = 10 * time.Second
)

// agent is the rooms, put together.
type agent struct {
	host        *daemon.Host
	credentials *transport.Credentials
	store       state.Store
	images      *images.Images
	pool        *peer.Pool
	peers       peer.Config
	pacer       *transport.Pacer
	slots       *relationship.Slots
	manager     *relationship.Manager
	events      *event.Log
	requests    state.Requests
	began       time.Time
	logs        durable.Dir
	machines    *machines
}

// Run is the agent's life: it serves until ctx ends.
func Run(ctx context.Context, config *Config, host *daemon.Host) (err error) {
	a := &agent{host: host, began: time.Now(), requests: state.Requests{Clock: time.Now}}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.open(config); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err).
			Try("Give --listen an address that is free.")
	}
	return a.serve(ctx, listener)
}

func (a *agent) open(config *Config) (err error) {
	if a.credentials, err = transport.LoadCredentials(config.TLSDir, a.host.Log); err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err).
			Try("Make the files with: vmreplica pki issue --role primary --name NAME, and give --tls-dir.")
	}
	if role := a.credentials.Identity().Role; role != transport.RolePrimary {
		return failure.New(failure.Invalid, failure.ReasonWrongRole, "the certificate in %s is a %s's, not a primary's", config.TLSDir, role).
			Try("Make one with: vmreplica pki issue --role primary --name NAME")
	}
	if a.images, err = images.New(config.ImageDirs, config.Devices); err != nil {
		return err
	}
	if a.store, err = state.Open(filepath.Join(config.StateDir, stateFile)); err != nil {
		return err
	}
	kept := settingsRecord.Default
	if err := a.store.View(func(tx state.Tx) (err error) {
		kept, err = settingsRecord.Get(tx)
		return err
	}); err != nil {
		return err
	}
	a.pacer, a.slots = transport.NewPacer(0), relationship.NewSlots(1)
	kept.use(a.pacer, a.slots)
	if err := os.MkdirAll(filepath.Join(config.StateDir, logDir), 0o700); err != nil {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the directory of the HRLs: %w", err)
	}
	if a.logs, err = durable.OpenDir(filepath.Join(config.StateDir, logDir)); err != nil {
		return err
	}
	monitors, err := qmp.Allow(config.QMPSockets)
	if err != nil {
		return err
	}
	if err := a.openRelationships(int64(config.CopyBeforeWriteMiB)<<20, monitors); err != nil {
		return err
	}
	a.machines, err = a.openMachines(config)
	return err
}

func (a *agent) openRelationships(copyBeforeWrite int64, monitors qmp.Allowed) (err error) {
	way := transport.DialConfig{Credentials: a.credentials, Want: transport.RoleReplica}
	a.peers = peer.Config{
		Dial: func(address string) (*grpc.ClientConn, error) { return transport.Dial(address, way) },
		Probe: func(ctx context.Context, address string) (transport.Probed, error) {
			return transport.Probe(ctx, address, way)
		},
		AgentVersion: build.Read().Version, Speeds: peer.MeasureSpeeds(), Pacer: a.pacer, Log: a.host.Log,
	}
	a.pool = peer.NewPool(a.peers)
	if a.events, err = event.Open(a.store, a.host.Log, time.Now); err != nil {
		return err
	}
	daemon.RecordCertificates(a.credentials, a.events, a.host.Log)
	a.manager, err = relationship.Open(relationship.Config{
		Store: a.store, Requests: a.requests, Events: a.events, Images: tracking.Allowed(a.images),
		Replicas: a.pool, Attempt: resync.Attempt, Budget: resync.NewBudget(heldBlocks),
		Limits: resync.DefaultLimits(), Slots: a.slots, Log: a.host.Log,
		Ship: ship.CatchUp, ShipLimits: ship.DefaultLimits(), Logs: a.logs,
		CopyBeforeWrite: tracking.NewBudget(copyBeforeWrite), DetachGrace: detachGrace,
		Monitor: monitors.Snapshots,
	})
	if err != nil {
		return err
	}
	if err := a.host.Registry.Register(&metrics{manager: a.manager, credentials: a.credentials}); err != nil {
		return failure.New(failure.Internal, failure.ReasonInternal, "register the metrics: %w", err)
	}
	a.host.AddCheck("state", func(context.Context) error {
		return a.store.View(func(state.Tx) error { return nil })
	})
	return nil
}

// serve runs everything until ctx ends or the server fails.
func (a *agent) serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := transport.NewServer(transport.ServerConfig{
		Credentials: a.credentials, Translate: api.Status, Log: a.host.Log,
	})
	a.register(server, ctx.Done())
	var running sync.WaitGroup
	defer running.Wait()
	// Machines are let go before the relationships end: what their last writes do to the logs is recorded.
	owners, end := context.WithCancel(context.WithoutCancel(ctx))
	running.Go(func() { a.manager.Run(owners) })
	running.Go(func() {
		defer end()
		<-ctx.Done()
		if err := a.machines.drain(); err != nil {
			a.host.Log.Error("machines", "error", err)
		}
	})
	running.Go(func() {
		defer cancel()
		if err := a.machines.serve(); err != nil {
			a.host.Log.Error("machines cannot attach their disks any more", "error", err)
		}
	})
	running.Go(func() { a.credentials.Watch(ctx) })
	running.Go(func() {
		<-ctx.Done()
		transport.Stop(server, stopBound)
	})
	a.host.Log.Info("the API is served", "address", listener.Addr().String(), "identity", a.credentials.Identity().String())
	a.host.Ready()
	err := server.Serve(listener)
	cancel()
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return failure.New(failure.Internal, failure.ReasonInternal, "serve the API: %w", err)
	}
	return nil
}

func (a *agent) register(server *grpc.Server, stopping <-chan struct{}) {
	requests := callers{}
	vmreplicav1.RegisterReplicationServiceServer(server,
		&replicationService{manager: a.manager, callers: requests, stopping: stopping, socket: a.machines.socket})
	vmreplicav1.RegisterResyncServiceServer(server,
		&resyncService{manager: a.manager, callers: requests, stopping: stopping})
	vmreplicav1.RegisterAgentServiceServer(server, &agentService{agent: a, callers: requests})
	vmreplicav1.RegisterEventServiceServer(server, &eventService{log: a.events, stopping: stopping})
	vmreplicav1.RegisterAuthorizationServiceServer(server, wrongAuthorization{})
	vmreplicav1.RegisterTransferServiceServer(server, wrongTransfer{})
}

// close lets go of what open has opened, in the opposite order.
func (a *agent) close() error {
	var errs []error
	if a.machines != nil {
		errs = append(errs, a.machines.close())
	}
	if a.logs != nil {
		errs = append(errs, a.logs.Close())
	}
	if a.pool != nil {
		errs = append(errs, a.pool.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	if a.images != nil {
		errs = append(errs, a.images.Close())
	}
	return errors.Join(errs...)
}
