package peer_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/agent-primary/peer"
	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/pki"
	"vmreplica/internal/replication"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// replica is a replica agent whose answers the test sets.
type replica struct {
	vmreplicav1.UnimplementedTransferServiceServer
	hello     *vmreplicav1.HelloResponse
	helloErr  error
	reconcile *vmreplicav1.ReconcileResponse
	begin     *vmreplicav1.BeginTransferResponse
	commit    *vmreplicav1.CommitTransferResponse
	err       error
	begun     atomic.Pointer[vmreplicav1.BeginTransferRequest]
	asked     atomic.Pointer[vmreplicav1.ReconcileRequest]
	committed atomic.Pointer[vmreplicav1.CommitTransferRequest]
	shipment  func(grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error
	stream    func(grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error
}

func (r *replica) Hello(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
	return r.hello, r.helloErr
}

func (r *replica) Reconcile(_ context.Context, request *vmreplicav1.ReconcileRequest) (*vmreplicav1.ReconcileResponse, error) {
	r.asked.Store(request)
	return r.reconcile, r.err
}

func (r *replica) BeginTransfer(
	_ context.Context, request *vmreplicav1.BeginTransferRequest,
) (*vmreplicav1.BeginTransferResponse, error) {
	r.begun.Store(request)
	return r.begin, r.err
}

func (r *replica) CommitTransfer(
	_ context.Context, request *vmreplicav1.CommitTransferRequest,
) (*vmreplicav1.CommitTransferResponse, error) {
	r.committed.Store(request)
	return r.commit, r.err
}

func (r *replica) Transfer(
	stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse],
) error {
	return r.stream(stream)
}

func (r *replica) Ship(stream grpc.BidiStreamingServer[vmreplicav1.ShipRequest, vmreplicav1.ShipResponse]) error {
	return r.shipment(stream)
}

// pair is a primary's configuration and a replica's address, over mutual TLS.
type pair struct {
	config  peer.Config
	address string
}

func newPair(t *testing.T, role string, served *replica) pair {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "pki")
	if _, err := pki.Init(directory, "test"); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	own := issue(t, directory, "primary", "host1", log)
	other := issue(t, directory, role, "host2", log)
	server := transport.NewServer(transport.ServerConfig{Credentials: other, Translate: api.Status, Log: log})
	vmreplicav1.RegisterTransferServiceServer(server, served)
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	way := transport.DialConfig{Credentials: own, Want: transport.RoleReplica}
	return pair{address: "localhost:" + port, config: peer.Config{
		Dial: func(address string) (*grpc.ClientConn, error) { return transport.Dial(address, way) },
		Probe: func(ctx context.Context, address string) (transport.Probed, error) {
			return transport.Probe(ctx, address, way)
		},
		AgentVersion: "1", Log: log,
		Speeds: map[blockdiff.Algorithm]int64{blockdiff.BLAKE3: 3e9, blockdiff.SHA256: 1e9},
	}}
}

func issue(t *testing.T, directory, role, name string, log *slog.Logger) *transport.Credentials {
	t.Helper()
	if _, err := pki.Issue(directory, role, name, []string{"localhost"}); err != nil {
		t.Fatal(err)
	}
	credentials, err := transport.LoadCredentials(filepath.Join(directory, name), log)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

func (p pair) link(t *testing.T) relationship.Replica {
	pool := peer.NewPool(p.config)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool.At(p.address, relationship.Identity{VM: "web01", UID: replication.NewID(), Term: 1})
}

func goodHello() *vmreplicav1.HelloResponse {
	return &vmreplicav1.HelloResponse{
		Version: 1, AgentVersion: "1", Proof: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3,
		Codecs: []vmreplicav1.Codec{vmreplicav1.Codec_CODEC_NONE, vmreplicav1.Codec_CODEC_ZSTD},
		Time:   timestamppb.Now(), FreeBytes: 1 << 40, Authorization: "spiffe://test/vmreplica/primary/*",
	}
}

func TestHelloAgrees(t *testing.T) {
	link := newPair(t, "replica", &replica{hello: goodHello()}).link(t)
	hello, err := link.Hello(t.Context())
	if err != nil || hello.Name != "host2" || hello.Proof != blockdiff.BLAKE3 || hello.Ahead.Abs() > time.Minute {
		t.Fatalf("got %+v, %v", hello, err)
	}
}

func TestHelloRefusesWhatItDoesNotKnow(t *testing.T) {
	cases := map[string]struct {
		change func(*vmreplicav1.HelloResponse)
		reason string
	}{
		"another version":             {func(h *vmreplicav1.HelloResponse) { h.Version = 2 }, failure.ReasonUnsupported},
		"a proof that does not exist": {func(h *vmreplicav1.HelloResponse) { h.Proof = 77 }, failure.ReasonProtocol},
		"no codecs":                   {func(h *vmreplicav1.HelloResponse) { h.Codecs = nil }, failure.ReasonProtocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			answer := goodHello()
			test.change(answer)
			_, err := newPair(t, "replica", &replica{hello: answer}).link(t).Hello(t.Context())
			if found := failure.Find(err); found.Reason != test.reason || found.VM != "web01" {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestFailuresArriveAsTheReplicaMadeThem(t *testing.T) {
	served := &replica{err: failure.New(failure.NotFound, failure.ReasonNotFound, "there is no such VM").Try("Prepare it.")}
	link := newPair(t, "replica", served).link(t)
	_, err := link.Reconcile(t.Context(), 0)
	if found := failure.Find(err); found.Class != failure.NotFound || found.Remedy != "Prepare it." || found.VM != "web01" {
		t.Fatalf("got %#v", found)
	}
}

func TestAnUnreachableReplicaIsRetryableWithARemedy(t *testing.T) {
	pair := newPair(t, "replica", &replica{})
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	pair.address = "localhost:" + port
	_, err = pair.link(t).Reconcile(t.Context(), 0)
	found := failure.Find(err)
	if !failure.Retryable(err) || found.Reason != failure.ReasonReplicaUnreachable ||
		!strings.Contains(found.Remedy, "test-connection "+pair.address) || !strings.Contains(found.Message, pair.address) {
		t.Fatalf("got %#v", found)
	}
}

func TestAnotherAgentAtTheAddressIsNotAnUnreachableReplica(t *testing.T) {
	pair := newPair(t, "primary", &replica{hello: goodHello()})
	_, err := pair.link(t).Hello(t.Context())
	found := failure.Find(err)
	if found.Class != failure.Precondition || found.Reason != failure.ReasonWrongRole || found.VM != "web01" ||
		!strings.Contains(found.Message, "vmreplica/primary/host2") || !strings.Contains(found.Remedy, pair.address) {
		t.Fatalf("got %#v", found)
	}
}

func TestAnswersOutOfRangeAreRefused(t *testing.T) {
	chain := make([]byte, 32)
	cursor := func(disk string, segment int64, chain []byte) *replica {
		return &replica{begin: &vmreplicav1.BeginTransferResponse{Cursors: []*vmreplicav1.TransferCursor{
			{Disk: disk, Segment: segment, Chain: chain},
		}}}
	}
	begin := func(link relationship.Replica) error {
		_, err := link.Transfers(blockdiff.SHA256).Begin(t.Context(), resync.Begin{
			Transfer: replication.NewID(), Kind: replication.KindResync, Disks: []resync.BeginDisk{{ID: "root", SizeBytes: 512}},
		})
		return err
	}
	reconcile := func(link relationship.Replica) error {
		_, err := link.Reconcile(t.Context(), 0)
		return err
	}
	cases := map[string]struct {
		served *replica
		call   func(relationship.Replica) error
		reason string
	}{
		"a good cursor":          {cursor("root", 3, chain), begin, ""},
		"a cursor for another":   {cursor("data", 0, chain), begin, failure.ReasonProtocol},
		"a negative cursor":      {cursor("root", -1, chain), begin, failure.ReasonProtocol},
		"a cursor past 64 TiB":   {cursor("root", 1<<40, chain), begin, failure.ReasonProtocol},
		"a chain cut short":      {cursor("root", 0, chain[:31]), begin, failure.ReasonProtocol},
		"no cursors":             {&replica{begin: &vmreplicav1.BeginTransferResponse{}}, begin, failure.ReasonProtocol},
		"a lineage that is none": {&replica{reconcile: &vmreplicav1.ReconcileResponse{Lineage: "../x"}}, reconcile, failure.ReasonProtocol},
		"layers below zero":      {&replica{reconcile: &vmreplicav1.ReconcileResponse{LayersToMerge: -1}}, reconcile, failure.ReasonProtocol},
		"more merged than there is": {&replica{reconcile: &vmreplicav1.ReconcileResponse{
			Disks: []*vmreplicav1.ReconcileDisk{{Id: "root", MergedBytes: 2, MergeTotalBytes: 1}},
		}}, reconcile, failure.ReasonProtocol},
		"another commit than asked": {&replica{commit: &vmreplicav1.CommitTransferResponse{Lineage: "x"}},
			func(link relationship.Replica) error {
				_, err := link.Transfers(blockdiff.BLAKE3).Commit(t.Context(), resync.Commit{Lineage: replication.NewID()})
				return err
			}, failure.ReasonProtocol},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			err := test.call(newPair(t, "replica", test.served).link(t))
			if test.reason == "" {
				if err != nil || test.served.begun.Load().GetProof() != vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_SHA256 {
					t.Fatalf("got %v", err)
				}
				return
			}
			if failure.Find(err).Reason != test.reason {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestWhatStandsInTheWayOfAMergeIsReadAndBounded(t *testing.T) {
	since := time.Unix(1_700_000_000, 0).UTC()
	problem := &vmreplicav1.MergeProblem{
		Reason: failure.ReasonStorageFull, Message: "no room\x1b[2J" + strings.Repeat("x", 1<<16), Remedy: "Free space.",
		Disk: "root", Since: timestamppb.New(since), Final: true,
	}
	served := &replica{reconcile: &vmreplicav1.ReconcileResponse{LayersToMerge: 1, MergeProblem: problem}}
	position, err := newPair(t, "replica", served).link(t).Reconcile(t.Context(), 0)
	if err != nil || position.MergeProblem == nil {
		t.Fatalf("%+v, %v", position, err)
	}
	read := position.MergeProblem
	if read.Found.Reason != failure.ReasonStorageFull || read.Found.Disk != "root" || read.Found.Remedy != "Free space." ||
		!read.Since.Equal(since) || !read.Final || len(read.Found.Message) > 1024 || strings.Contains(read.Found.Message, "\x1b") {
		t.Fatalf("%+v: %+v", read, read.Found)
	}
	problem.Disk, problem.Reason = "../x", ""
	position, err = newPair(t, "replica", served).link(t).Reconcile(t.Context(), 0)
	if err != nil || position.MergeProblem.Found.Disk != "" || position.MergeProblem.Found.Reason == "" {
		t.Fatalf("%+v, %v", position, err)
	}
}
