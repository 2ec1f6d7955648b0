// Package pair runs the two ends of a transfer against each other in one process: the primary's resync and peer, the
// replica's receive, chain, storage and merge, with gRPC between them. What the replica holds afterwards is compared
// byte by byte with the primary's image.
package pair_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"vmreplica/agent-primary/peer"
	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const vmName, diskID = "web01", "root.img"

// world is a primary's image and a replica that holds an older one.
type world struct {
	t        *testing.T
	image    string
	formats  formats
	storage  *storage.Storage
	registry *chain.Registry
	receiver *receive.Receiver
	limits   resync.Limits
	proof    blockdiff.Algorithm
	uid      replication.ID
	progress resync.Progress
	// mangle may change or stop what crosses the wire.
	mangle func(call *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream
	link   *peer.Link
	base   string
}

func newWorld(t *testing.T, primary, replica []byte, limits func(*receive.Limits, *resync.Limits)) *world {
	t.Helper()
	return newWorldOf(t, formats{"raw", "raw"}, primary, replica, limits)
}

func newWorldOf(t *testing.T, f formats, primary, replica []byte, limits func(*receive.Limits, *resync.Limits)) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{t: t, image: filepath.Join(dir, diskID), formats: f, uid: replication.NewID(), proof: blockdiff.BLAKE3,
		limits: resync.DefaultLimits()}
	writeImage(t, w.image, f.image, primary)
	root := filepath.Join(dir, "storage")
	w.base = filepath.Join(root, "host-a", vmName, diskID)
	if replica != nil {
		must(t, os.MkdirAll(filepath.Dir(w.base), 0o700))
		writeImage(t, w.base, f.base, replica)
	} else {
		must(t, os.MkdirAll(root, 0o700))
	}
	store, err := state.Open(filepath.Join(dir, "state.db"))
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	w.storage, err = storage.Open(root, nil)
	must(t, err)
	t.Cleanup(func() { must(t, w.storage.Close()) })
	w.registry = chain.NewRegistry(chain.NewTable(store, nil), w.storage)
	_, err = w.registry.Prepare(chain.Prepare{
		VM: vmName, UID: w.uid, Primary: "p", Authorization: "p", Directory: "host-a/" + vmName, Term: 1,
		UseExisting: replica != nil, Time: time.Now(),
		Disks: []chain.PrepareDisk{{
			Geometry: chain.Geometry{ID: diskID, SizeBytes: int64(len(primary)), LogicalSectorSize: 512}, Format: f.base,
		}},
	})
	must(t, err)
	replicaLimits := receive.DefaultLimits()
	replicaLimits.CursorInterval = 20 * time.Millisecond
	w.limits.FlushInterval = 5 * time.Millisecond
	if limits != nil {
		limits(&replicaLimits, &w.limits)
	}
	w.receiver = receive.New(receive.Config{
		Registry: w.registry, Space: w.storage, Gate: gate{w.registry.Table()}, Log: slog.New(slog.DiscardHandler),
		Limits: replicaLimits,
	})
	t.Cleanup(w.receiver.Close)
	w.serve()
	return w
}

// gate admits everybody.
type gate struct{ table *chain.Table }

func (g gate) Admit(_ context.Context, named *vmreplicav1.Relationship) (chain.Record, error) {
	return g.table.Get(named.GetVm())
}

// service hands the calls to the receiver.
type service struct {
	vmreplicav1.UnimplementedTransferServiceServer
	receiver *receive.Receiver
}

func (s service) BeginTransfer(ctx context.Context, r *vmreplicav1.BeginTransferRequest) (*vmreplicav1.BeginTransferResponse, error) {
	return s.receiver.BeginTransfer(ctx, r)
}

func (s service) CommitTransfer(ctx context.Context, r *vmreplicav1.CommitTransferRequest) (*vmreplicav1.CommitTransferResponse, error) {
	return s.receiver.CommitTransfer(ctx, r)
}

func (s service) AbortTransfer(ctx context.Context, r *vmreplicav1.AbortTransferRequest) (*vmreplicav1.AbortTransferResponse, error) {
	return s.receiver.AbortTransfer(ctx, r)
}

func (s service) Transfer(stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error {
	return s.receiver.Transfer(stream)
}

func (s service) Ship(stream grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error {
	return s.receiver.Ship(stream)
}

func (w *world) serve() {
	link, stop := connect(w.t, w.receiver, w.uid, func(info *grpc.StreamServerInfo, stream grpc.ServerStream) grpc.ServerStream {
		if w.mangle == nil {
			return stream
		}
		return w.mangle(info, stream)
	})
	w.link = link
	w.t.Cleanup(stop)
}

// connect serves the receiver in memory and answers a primary's way to it.
func connect(t *testing.T, receiver *receive.Receiver, uid replication.ID,
	mangle func(*grpc.StreamServerInfo, grpc.ServerStream) grpc.ServerStream,
) (link *peer.Link, stop func()) {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			answer, err := next(ctx, r)
			return answer, api.Status(err)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return api.Status(next(srv, mangle(info, stream)))
		}))
	vmreplicav1.RegisterTransferServiceServer(server, service{receiver: receiver})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	dial := func(string) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///replica", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	}
	pool := peer.NewPool(peer.Config{
		Dial: dial, Pacer: transport.NewPacer(0), Log: slog.New(slog.DiscardHandler),
		Probe: func(context.Context, string) (transport.Probed, error) { return transport.Probed{}, net.ErrClosed },
	})
	link = pool.At("replica:7443", relationship.Identity{VM: vmName, UID: uid, Term: 1}).(*peer.Link)
	return link, func() {
		must(t, pool.Close())
		server.Stop()
		serving.Wait()
	}
}

// source is the primary's image as a Source.
type source struct {
	disk.Image
}

func (s source) Cut(context.Context) (tracking.Cut, error) {
	stamp, err := s.Stamp()
	return tracking.Cut{ID: replication.NewID(), Stamp: stamp}, err
}

func (s source) Continuous(since tracking.Cut) error {
	now, err := s.Stamp()
	if err != nil {
		return err
	}
	return tracking.Unchanged("image", since.Stamp, now)
}

func (w *world) attempt(ctx context.Context, transfer replication.ID, kind replication.ResyncKind) (resync.Outcome, error) {
	w.t.Helper()
	file, err := os.Open(w.image)
	must(w.t, err)
	image, err := format.Open(durable.NewFile(file), w.formats.image, format.Options{Path: w.image, Access: imagelock.Read})
	must(w.t, err)
	defer image.Close()
	src := source{image}
	cut, err := src.Cut(ctx)
	must(w.t, err)
	return resync.Attempt(ctx, w.link.Transfers(w.proof), resync.Options{
		Transfer: transfer, Kind: kind, Proof: w.proof, Budget: resync.NewBudget(64 << 20), Limits: w.limits,
		Disks: []resync.Disk{{ID: diskID, Source: src, Cut: cut, Progress: &w.progress}},
	})
}

// transfer runs attempts until one goes through, then commits.
func (w *world) transfer(kind replication.ResyncKind) resync.Outcome {
	w.t.Helper()
	id := replication.NewID()
	var outcome resync.Outcome
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
		var err error
		outcome, err = w.attempt(ctx, id, kind)
		cancel()
		if err == nil {
			break
		}
		if attempt == 100 || !failure.Retryable(err) {
			w.t.Fatalf("attempt %d: %v", attempt, err)
		}
	}
	commit := resync.Commit{Transfer: id, Lineage: replication.NewID(), Cut: replication.NewID()}
	for _, d := range outcome.Disks {
		commit.Roots = append(commit.Roots, resync.DiskRoot{Disk: d.ID, Root: d.Root})
	}
	_, err := w.link.Transfers(w.proof).Commit(w.t.Context(), commit)
	must(w.t, err)
	return outcome
}

// merge runs the merger until nothing is left to merge.
func (w *world) merge() {
	w.t.Helper()
	merger := merge.New(merge.Config{
		Registry: w.registry, Space: w.storage, Log: slog.New(slog.DiscardHandler), Parallel: 1,
	})
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	var running sync.WaitGroup
	running.Go(func() { _ = merger.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for {
		record, err := w.registry.Table().Get(vmName)
		must(w.t, err)
		if record.LayersToMerge() == 0 && len(record.Garbage) == 0 {
			return
		}
		if ctx.Err() != nil {
			w.t.Fatal("the merge did not end")
		}
		time.Sleep(time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeSparse writes content, leaving 4 KiB ranges of zeros as holes.
func writeSparse(t *testing.T, path string, content []byte) {
	t.Helper()
	file, err := os.Create(path)
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(int64(len(content))))
	for off := 0; off < len(content); off += 4096 {
		part := content[off:min(off+4096, len(content))]
		if !blockdiff.IsZero(part) {
			_, err := file.WriteAt(part, int64(off))
			must(t, err)
		}
	}
}
