package receive_test

import (
	"context"
	"log/slog"
	"net"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/receive"
	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vmName, diskID = "web01", "root"
	directory      = "p/web01"
	size           = 1<<20 + 512
)

func id(digit string) replication.ID { return replication.ID(strings.Repeat(digit, 32)) }

// world is a replica on a host in memory that holds lineage 1 with cut 2, and a primary's way to it.
type world struct {
	t        *testing.T
	recorder *durabletest.Recorder
	registry *chain.Registry
	files    *storage.Storage
	receiver *receive.Receiver
	client   vmreplicav1.TransferServiceClient
	term     uint64
	close    func()
}

// gate admits everybody and raises no term.
type gate struct{ table *chain.Table }

func (g gate) Admit(_ context.Context, named *vmreplicav1.Relationship) (chain.Record, error) {
	return g.table.Get(named.GetVm())
}

type service struct {
	vmreplicav1.UnimplementedTransferServiceServer
	*receive.Receiver
}

func (s service) Transfer(stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error {
	return s.Receiver.Transfer(stream)
}

func (s service) Ship(stream grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error {
	return s.Receiver.Ship(stream)
}

func (s service) BeginTransfer(ctx context.Context, r *vmreplicav1.BeginTransferRequest) (*vmreplicav1.BeginTransferResponse, error) {
	return s.Receiver.BeginTransfer(ctx, r)
}

func (s service) CommitTransfer(ctx context.Context, r *vmreplicav1.CommitTransferRequest) (*vmreplicav1.CommitTransferResponse, error) {
	return s.Receiver.CommitTransfer(ctx, r)
}

func (s service) AbortTransfer(ctx context.Context, r *vmreplicav1.AbortTransferRequest) (*vmreplicav1.AbortTransferResponse, error) {
	return s.Receiver.AbortTransfer(ctx, r)
}

// on serves the replica that is on the recorder; wrap may change its storage.
func on(t *testing.T, recorder *durabletest.Recorder, wrap func(chain.Storage) chain.Storage) *world {
	t.Helper()
	w := &world{t: t, recorder: recorder, files: storage.New(recorder.Dir(), nil), term: 1}
	var seen chain.Storage = w.files
	if wrap != nil {
		seen = wrap(seen)
	}
	w.registry = chain.NewRegistry(chain.NewTable(statetest.New(recorder), nil), seen)
	limits := receive.DefaultLimits()
	limits.FrameCreditBytes, limits.CursorInterval = 1<<20, time.Millisecond
	w.receiver = receive.New(receive.Config{
		Registry: w.registry, Space: w.files, Gate: gate{w.registry.Table()}, Log: slog.New(slog.DiscardHandler), Limits: limits,
	})
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20),
		grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			answer, err := next(ctx, r)
			return answer, api.Status(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return api.Status(next(srv, stream))
		}))
	vmreplicav1.RegisterTransferServiceServer(server, service{Receiver: w.receiver})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///replica", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	must(t, err)
	w.client = vmreplicav1.NewTransferServiceClient(conn)
	w.close = sync.OnceFunc(func() {
		must(t, conn.Close())
		server.Stop()
		serving.Wait()
		w.receiver.Close()
	})
	t.Cleanup(w.close)
	return w
}

// newWorld has bases of sevens; without them the first copy is still to be made.
func newWorld(t *testing.T, existing bool) *world {
	t.Helper()
	return prepared(on(t, durabletest.New(), nil), existing)
}

func prepared(w *world, existing bool) *world {
	w.t.Helper()
	if existing {
		base := chain.Base{File: path.Join(directory, diskID)}
		must(w.t, w.files.CreateBase(base, size, 512, false))
		opened, err := w.files.OpenBase(base, 512)
		must(w.t, err)
		_, err = opened.WriteAt(old(), 0)
		must(w.t, err)
		must(w.t, opened.Flush())
		must(w.t, opened.Close())
	}
	_, err := w.registry.Prepare(chain.Prepare{VM: vmName, UID: id("0"), Primary: "p", Directory: directory, Term: 1,
		UseExisting: existing, Disks: []chain.PrepareDisk{{
			Geometry: chain.Geometry{ID: diskID, SizeBytes: size, LogicalSectorSize: 512},
		}}})
	must(w.t, err)
	if existing {
		w.update(func(r *chain.Record) error {
			r.Lineage, r.Cut, r.Disks[0].Root = id("1"), id("2"), blockdiff.Hash{9}
			return nil
		})
	}
	return w
}

func old() []byte { return []byte(strings.Repeat("7", size)) }

func (w *world) update(change func(*chain.Record) error) {
	w.t.Helper()
	_, err := w.registry.VM(vmName).Update(change)
	must(w.t, err)
}

func (w *world) record() chain.Record {
	w.t.Helper()
	record, err := w.registry.VM(vmName).Record()
	must(w.t, err)
	return record
}

func (w *world) relationship() *vmreplicav1.Relationship {
	return &vmreplicav1.Relationship{Vm: vmName, Uid: string(id("0")), Term: w.term}
}

func (w *world) begin(kind vmreplicav1.TransferKind) error {
	_, err := w.client.BeginTransfer(w.t.Context(), &vmreplicav1.BeginTransferRequest{
		Relationship: w.relationship(), Transfer: string(id("a")), Kind: kind, Proof: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3,
		Disks:   []*vmreplicav1.TransferDisk{{Id: diskID, SizeBytes: size, LogicalSectorBytes: 512}},
		Lineage: string(w.record().Lineage), Cut: string(w.record().Cut), RecoveryPoints: 3,
	})
	return api.FromStatus(err)
}

func (w *world) commit(change func(*vmreplicav1.CommitTransferRequest), shipped blockdiff.Hash) error {
	record := w.record()
	root := record.Disks[0].Root
	request := &vmreplicav1.CommitTransferRequest{
		Relationship: w.relationship(), Transfer: string(id("a")), Lineage: string(record.Lineage), Cut: string(id("5")),
		Disks: []*vmreplicav1.CommitDisk{{Id: diskID, Root: root[:], Shipment: string(id("5")), ShipmentRoot: shipped[:]}},
	}
	if change != nil {
		change(request)
	}
	_, err := w.client.CommitTransfer(w.t.Context(), request)
	return api.FromStatus(err)
}

// view is what the replica holds, without what is being received.
func (w *world) view() []byte {
	w.t.Helper()
	vm := w.registry.VM(vmName)
	must(w.t, vm.Acquire())
	defer func() { must(w.t, vm.Release()) }()
	pin, err := vm.Pin("", "a test")
	must(w.t, err)
	defer func() { must(w.t, pin.Release()) }()
	reader, err := pin.Disk(diskID)
	must(w.t, err)
	content := make([]byte, size)
	_, err = reader.ReadAt(content, 0)
	must(w.t, err)
	return content
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return failure.Find(api.FromStatus(err)).Reason
}
