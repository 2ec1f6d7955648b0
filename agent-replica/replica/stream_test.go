package replica

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/api"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state"
	"vmreplica/internal/state/statetest"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// stream opens a stream of a first copy that waits for its primary.
func (b *bed) stream(client vmreplicav1.TransferServiceClient) vmreplicav1.TransferService_TransferClient {
	b.t.Helper()
	if _, err := client.PrepareReplica(b.t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		b.t.Fatal(err)
	}
	if _, err := client.BeginTransfer(b.t.Context(), beginRequest()); err != nil {
		b.t.Fatal(api.FromStatus(err))
	}
	stream, err := client.Transfer(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	open := &vmreplicav1.TransferOpen{Relationship: relationship("a"), Transfer: beginRequest().Transfer, Disk: "root",
		Session: 1, DigestCreditBytes: 1 << 20}
	if err := stream.Send(&vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Open{Open: open}}); err != nil {
		b.t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || answer.GetOpened() == nil {
		b.t.Fatalf("opening answered %v, %v", answer, err)
	}
	return stream
}

func beginRequest() *vmreplicav1.BeginTransferRequest {
	return &vmreplicav1.BeginTransferRequest{
		Relationship: relationship("a"), Transfer: strings.Repeat("c", 32),
		Kind:  vmreplicav1.TransferKind_TRANSFER_KIND_INITIAL,
		Proof: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3,
		Disks: []*vmreplicav1.TransferDisk{{Id: "root", SizeBytes: diskSize, LogicalSectorBytes: 512}},
	}
}

// end is how a stream ends.
func end(stream vmreplicav1.TransferService_TransferClient) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func TestARaisedTermEndsTheStreamsOfALowerOne(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	client := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	stream := b.stream(client)
	raised := relationship("a")
	raised.Term++
	if _, err := client.Reconcile(t.Context(), &vmreplicav1.ReconcileRequest{Relationship: raised}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "the stream", end(stream), failure.ReasonStaleTerm)
}

func TestAPrimaryIsToldThatItIsNoLongerAuthorized(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	stream := b.stream(vmreplicav1.NewTransferServiceClient(b.dial("pve1")))
	_, err := vmreplicav1.NewAuthorizationServiceClient(b.dial("alice")).DeleteAuthorization(t.Context(),
		&vmreplicav1.DeleteAuthorizationRequest{Pattern: "pve1"})
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, "the stream", end(stream), failure.ReasonNotAuthorized)
}

// A base that a machine has open is told of once, however often the primary tries.
func TestABaseInUseIsAnEvent(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	client := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	if _, err := client.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	files, err := storage.Open(b.storage, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	base, err := files.OpenBase(chain.Base{File: "pve1/web01/root"}, 512)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for range 2 {
		_, err := client.BeginTransfer(t.Context(), beginRequest())
		wantReason(t, "a base in use", err, failure.ReasonImageInUse)
	}
	told, err := vmreplicav1.NewEventServiceClient(b.dial("alice")).ListEvents(t.Context(), &vmreplicav1.ListEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, e := range told.GetEvents() {
		if e.GetType() == event.TypeImageInUse && strings.Contains(e.GetMessage(), "is open") {
			count++
		}
	}
	if count != 1 {
		t.Errorf("told %d times: %v", count, told.GetEvents())
	}
}

func TestATransferDoesNotBeginWithoutRoomForProgress(t *testing.T) {
	volume := durabletest.NewVolume(t, 24<<20) // about 16 MiB are free
	files, err := storage.Open(volume.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if err := files.CreateBase(chain.Base{File: "root"}, 64<<20, 512, false); err != nil {
		t.Fatal(err)
	}
	filled := files.Balloon("filled")
	if err := filled.Grow(8 << 20); err != nil {
		t.Fatal(err)
	}
	record := func(size int64, incomplete bool) chain.Record {
		return chain.Record{VM: "web01", Disks: []chain.Disk{{ID: "root", SizeBytes: size,
			Base: chain.Base{File: "root", Incomplete: incomplete}}}}
	}
	used := &usage{storage: files}
	for name, c := range map[string]struct {
		record chain.Record
		kind   replication.ResyncKind
		full   bool
	}{
		"a first copy":                  {record(64<<20, true), replication.KindInitial, true},
		"a resync":                      {record(64<<20, false), replication.KindResync, true},
		"a verify, which needs nothing": {record(64<<20, false), replication.KindVerify, false},
		"a small disk":                  {record(1<<20, false), replication.KindResync, false},
	} {
		err := used.checkBegin(c.record, c.kind)
		switch {
		case !c.full && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.full && (err == nil || failure.Find(err).Reason != failure.ReasonStorageFull || failure.Find(err).Class != failure.Exhausted):
			t.Errorf("%s: %v", name, err)
		case c.full && !strings.Contains(err.Error(), "bytes are needed"):
			t.Errorf("%s: %q does not say what is needed", name, err)
		}
	}
}

func TestAnObstacleIsToldOnceAndSoIsItsEnd(t *testing.T) {
	files, err := storage.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	events, err := event.Open(statetest.New(durabletest.New()), slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	o := newObstacles(files, events, slog.New(slog.DiscardHandler))
	for range 2 {
		o.Progress("web01")
		o.Full("web01", "root", "the storage is full")
		o.Full("web01", "root", "the storage is full")
		o.Progress("web01")
		o.InUse("web01", "root", "root is open in qemu (12)")
		o.InUse("web01", "root", "root is open in qemu (12)")
		o.Opened("web01")
	}
	told, err := events.List("web01", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range told {
		types = append(types, e.Type)
	}
	want := []string{event.TypeStorageFull, event.TypeStorageRecovered, event.TypeImageInUse}
	want = append(want, want...)
	if strings.Join(types, " ") != strings.Join(want, " ") {
		t.Errorf("told %v", types)
	}
}

// The number of recovery points that is wanted comes with every look at the replica; one that is not said changes nothing.
func TestReconcilingKeepsThePolicy(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	client := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	if _, err := client.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		points *int32
		reason string
	}{{proto.Int32(4), ""}, {nil, ""}, {proto.Int32(25), failure.ReasonInvalidArgument}, {proto.Int32(-1), failure.ReasonInvalidArgument}} {
		_, err := client.Reconcile(t.Context(), &vmreplicav1.ReconcileRequest{Relationship: relationship("a"), RecoveryPoints: c.points})
		wantReason(t, "reconciling", err, c.reason)
	}
	b.stop()
	store, err := state.Open(filepath.Join(b.state, "replica.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if record, err := chain.NewTable(store, nil).Get("web01"); err != nil || record.RecoveryPoints != 4 {
		t.Errorf("%d points are kept, %v", record.RecoveryPoints, err)
	}
}

// A replica that takes deltas is replicating, not resynchronizing.
func TestWhatATransferIsAt(t *testing.T) {
	transfer := func(kind replication.ResyncKind, shipment replication.ID) *chain.Transfer {
		return &chain.Transfer{Kind: kind, Disks: []chain.TransferDisk{{Shipment: chain.Shipment{ID: shipment}}}}
	}
	for _, c := range []struct {
		transfer *chain.Transfer
		state    replication.State
		activity replication.Activity
	}{
		{transfer(replication.KindDelta, "5"), replication.Replicating, replication.Sending},
		{transfer(replication.KindVerify, ""), replication.Replicating, replication.Verifying},
		{transfer(replication.KindResync, ""), replication.Resynchronizing, replication.Comparing},
		{transfer(replication.KindResync, "5"), replication.Resynchronizing, replication.CatchingUp},
	} {
		o := observation{record: chain.Record{Lineage: "1", Transfer: c.transfer}, doing: []chain.Purpose{chain.ToTransfer}}
		if o.state() != c.state || o.activity() != c.activity {
			t.Errorf("a %s is %s and %s", c.transfer.Kind, o.state(), o.activity())
		}
	}
}
