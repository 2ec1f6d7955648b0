package peer_test

import (
	"context"
	"errors"
	"io"
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
	stream    func(grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error
}

func (r *replica) Hello(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
	return r.hello, r.helloErr
}

func (r *replica) Reconcile(context.Context, *vmreplicav1.ReconcileRequest) (*vmreplicav1.ReconcileResponse, error) {
	return r.reconcile, r.err
}

func (r *replica) BeginTransfer(
	_ context.Context, request *vmreplicav1.BeginTransferRequest,
) (*vmreplicav1.BeginTransferResponse, error) {
	r.begun.Store(request)
	return r.begin, r.err
}

func (r *replica) CommitTransfer(
	context.Context, *vmreplicav1.CommitTransferRequest,
) (*vmreplicav1.CommitTransferResponse, error) {
	return r.commit, r.err
}

func (r *replica) Transfer(
	stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse],
) error {
	return r.stream(stream)
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
	dial := func(want transport.Role) func(string) (*grpc.ClientConn, error) {
		return func(address string) (*grpc.ClientConn, error) {
			return transport.Dial(address, transport.DialConfig{Credentials: own, Want: want})
		}
	}
	return pair{address: "localhost:" + port, config: peer.Config{
		Dial: dial(transport.RoleReplica), Probe: dial(""), AgentVersion: "1", Log: log,
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
	_, err := link.Reconcile(t.Context())
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
	_, err = pair.link(t).Reconcile(t.Context())
	found := failure.Find(err)
	if !failure.Retryable(err) || found.Reason != failure.ReasonReplicaUnreachable ||
		!strings.Contains(found.Remedy, "test-connection "+pair.address) || !strings.Contains(found.Message, pair.address) {
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
		_, err := link.Reconcile(t.Context())
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

func openStream(t *testing.T, link relationship.Replica) (resync.Stream, error) {
	t.Helper()
	stream, _, err := link.Transfers(blockdiff.BLAKE3).Open(t.Context(), resync.Open{
		Transfer: replication.NewID(), Disk: "root", Session: 1, DigestCreditBytes: 1 << 20,
	})
	return stream, err
}

func opened() *vmreplicav1.TransferResponse {
	return &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Opened{Opened: &vmreplicav1.TransferOpened{
		Cursor:             &vmreplicav1.TransferCursor{Disk: "root", Chain: make([]byte, 32)},
		RefineCreditBlocks: 1, FrameCreditBytes: 1,
	}}}
}

type serverStream = grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]

func TestAStreamCarriesEveryMessage(t *testing.T) {
	got := make(chan *vmreplicav1.TransferRequest, 8)
	served := &replica{stream: func(stream serverStream) error {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(opened()); err != nil {
			return err
		}
		for range 5 {
			request, err := stream.Recv()
			if err != nil {
				return err
			}
			got <- request
		}
		return stream.Send(&vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Finished{
			Finished: &vmreplicav1.TransferFinished{Root: make([]byte, 32)},
		}})
	}}
	stream, err := openStream(t, newPair(t, "replica", served).link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	payload := make([]byte, 100_000)
	for _, request := range []resync.Request{
		resync.DigestCredit{Bytes: 7}, resync.Refine{Blocks: []int64{1, 5}},
		resync.Frame{Sequence: 1, Frame: blockdiff.Frame{Codec: blockdiff.CodecNone, Payload: payload}},
		resync.Proofs{Runs: []resync.ProofRun{{First: 0, Count: 2, Hashes: make([]blockdiff.Hash, 2)}, {First: 2, Count: 9}}},
		resync.Finish{Root: blockdiff.Hash{1}},
	} {
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	response, err := stream.Recv()
	if _, ok := response.(resync.Finished); !ok {
		t.Fatalf("got %#v, %v", response, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the end is %v", err)
	}
	if (<-got).GetDigestCredit().GetBytes() != 7 || len((<-got).GetRefine().GetBlocks()) != 2 {
		t.Error("credit or refine is not what was sent")
	}
	frame, proofs, finish := (<-got).GetFrame(), (<-got).GetProofs(), (<-got).GetFinish()
	if frame.GetSequence() != 1 || frame.GetCodec() != vmreplicav1.Codec_CODEC_NONE || len(frame.GetPayload()) != len(payload) {
		t.Error("the frame is not what was sent")
	}
	if runs := proofs.GetRuns(); len(runs) != 2 || len(runs[0].GetHashes()) != 64 || len(runs[1].GetHashes()) != 0 {
		t.Errorf("proofs %v", proofs)
	}
	if finish.GetRoot()[0] != 1 {
		t.Error("the root is not what was sent")
	}
	if sent, received := stream.WireBytes(); sent < 100_000 || sent > 110_000 || received < 64 || received > 1_000 {
		t.Errorf("%d bytes sent and %d received", sent, received)
	}
}

func TestMessagesOutOfRangeAreRefused(t *testing.T) {
	digests := func(kind vmreplicav1.DigestRun_Kind, first, count int64, packed int) *vmreplicav1.TransferResponse {
		return &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Digests{Digests: &vmreplicav1.Digests{
			Runs: []*vmreplicav1.DigestRun{{Kind: kind, FirstBlock: first, Count: count, Digests: make([]byte, packed)}},
		}}}
	}
	const list, hole = vmreplicav1.DigestRun_KIND_DIGESTS, vmreplicav1.DigestRun_KIND_HOLE
	cases := map[string]*vmreplicav1.TransferResponse{
		"a run of an unknown kind":    digests(9, 0, 1, 0),
		"a run before the disk":       digests(hole, -1, 1, 0),
		"a run of nothing":            digests(hole, 0, 0, 0),
		"a run of minus one":          digests(hole, 0, -1, 0),
		"a run past every disk":       digests(hole, 1<<30, 1, 0),
		"a run that overflows":        digests(hole, 1, 1<<63-1, 0),
		"fewer digests than blocks":   digests(list, 0, 2, 8),
		"digests cut in the middle":   digests(list, 0, 1, 7),
		"a hole with digests":         digests(hole, 0, 1, 8),
		"no message":                  {},
		"the opening twice":           opened(),
		"refinements without digests": {Message: &vmreplicav1.TransferResponse_Refinements{Refinements: &vmreplicav1.Refinements{Blocks: []int64{1}}}},
		"a mismatch without leaves":   {Message: &vmreplicav1.TransferResponse_Mismatch{Mismatch: &vmreplicav1.SegmentMismatch{Segment: 1}}},
		"durable before proven": {Message: &vmreplicav1.TransferResponse_Acknowledgement{
			Acknowledgement: &vmreplicav1.TransferAcknowledgement{ProvenSegment: 1, DurableSegment: 2}}},
		"a root cut short": {Message: &vmreplicav1.TransferResponse_Finished{Finished: &vmreplicav1.TransferFinished{Root: make([]byte, 31)}}},
	}
	for name, message := range cases {
		t.Run(name, func(t *testing.T) {
			served := &replica{stream: func(stream serverStream) error {
				return errors.Join(stream.Send(opened()), stream.Send(message))
			}}
			stream, err := openStream(t, newPair(t, "replica", served).link(t))
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			response, err := stream.Recv()
			if found := failure.Find(err); found.Reason != failure.ReasonProtocol || found.Disk != "root" {
				t.Fatalf("got %#v, %v", response, err)
			}
		})
	}
}

func TestSendAnswersWhyTheReplicaEndedTheStream(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		return failure.New(failure.Precondition, failure.ReasonStaleTerm, "the term is behind")
	}}
	stream, err := openStream(t, newPair(t, "replica", served).link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	received := make(chan error)
	go func() {
		_, err := stream.Recv()
		received <- err
	}()
	for err == nil {
		err = stream.Send(resync.DigestCredit{Bytes: 1})
	}
	if failure.Find(err).Reason != failure.ReasonStaleTerm || failure.Find(<-received).Reason != failure.ReasonStaleTerm {
		t.Fatalf("sending answers %v", err)
	}
}

func TestAStreamThatMovesNothingIsEnded(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}}
	pair := newPair(t, "replica", served)
	pair.config.ProgressTimeout = 50 * time.Millisecond
	stream, err := openStream(t, pair.link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_, err = stream.Recv()
	if failure.Find(err).Reason != failure.ReasonNoProgress || !failure.Retryable(err) {
		t.Fatalf("got %v", err)
	}
}

func TestSlowPacingIsProgress(t *testing.T) {
	served := &replica{stream: func(stream serverStream) error {
		if err := stream.Send(opened()); err != nil {
			return err
		}
		for {
			if _, err := stream.Recv(); err != nil {
				return nil
			}
		}
	}}
	pair := newPair(t, "replica", served)
	pair.config.ProgressTimeout = 150 * time.Millisecond
	pair.config.Pacer = transport.NewPacer(512 << 10)
	stream, err := openStream(t, pair.link(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	began := time.Now()
	frame := resync.Frame{Sequence: 1, Frame: blockdiff.Frame{Codec: blockdiff.CodecNone, Payload: make([]byte, 256<<10)}}
	if err := stream.Send(frame); err != nil {
		t.Fatalf("a slow limit is taken for a standstill: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Fatalf("256 KiB at 512 KiB/s took %v", took)
	}
}

func TestConnectionTest(t *testing.T) {
	all := []string{"dns", "tcp", "tls", "role", "entry", "version", "space", "clock"}
	noEntry, otherVersion, full, late := goodHello(), goodHello(), goodHello(), goodHello()
	noEntry.Authorization, otherVersion.Version, full.FreeBytes = "", 2, 0
	late.Time = timestamppb.New(time.Now().Add(-time.Hour))
	cases := map[string]struct {
		role   string
		served *replica
		failed string
	}{
		"all is well":          {"replica", &replica{hello: goodHello()}, ""},
		"it is a primary":      {"primary", &replica{hello: goodHello()}, "role"},
		"no entry":             {"replica", &replica{hello: noEntry}, "entry"},
		"refused":              {"replica", &replica{helloErr: failure.New(failure.Denied, failure.ReasonNotAuthorized, "no")}, "entry"},
		"another version":      {"replica", &replica{hello: otherVersion}, "version"},
		"no space":             {"replica", &replica{hello: full}, "space"},
		"a clock an hour late": {"replica", &replica{hello: late}, "clock"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			pair := newPair(t, test.role, test.served)
			checks, err := peer.Test(t.Context(), pair.config, pair.address)
			if err != nil {
				t.Fatal(err)
			}
			for i, check := range checks {
				last := i == len(checks)-1
				if check.Name != all[i] || check.Message == "" || check.Passed == (last && test.failed != "") {
					t.Fatalf("check %d is %+v", i, check)
				}
				if !check.Passed && (check.Name != test.failed || check.Remedy == "" && check.Name != "version") {
					t.Fatalf("failed at %+v, want %s", check, test.failed)
				}
			}
			if test.failed == "" && len(checks) != len(all) {
				t.Fatalf("%d checks", len(checks))
			}
		})
	}
}

func TestConnectionTestFailsEarly(t *testing.T) {
	pair := newPair(t, "replica", &replica{hello: goodHello()})
	stranger := newPair(t, "replica", &replica{hello: goodHello()}) // its authority is another one
	cases := map[string]struct{ address, failed string }{
		"no such name":      {"no-such-host.invalid:7443", "dns"},
		"nobody listens":    {"localhost:1", "tcp"},
		"another authority": {stranger.address, "tls"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			checks, err := peer.Test(t.Context(), pair.config, test.address)
			if err != nil {
				t.Fatal(err)
			}
			last := checks[len(checks)-1]
			if last.Name != test.failed || last.Passed || last.Remedy == "" {
				t.Fatalf("got %+v", last)
			}
		})
	}
	if _, err := peer.Test(t.Context(), pair.config, "nowhere"); failure.Find(err).Class != failure.Invalid {
		t.Fatalf("an address without a port gave %v", err)
	}
}
