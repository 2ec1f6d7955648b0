package replica

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"vmreplica/agent-replica/storage"
	"vmreplica/internal/api"
	"vmreplica/internal/daemon"
	"vmreplica/internal/failure"
	"vmreplica/internal/pki"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a replica agent that serves on loopback, and the certificates to call it.
type bed struct {
	t       *testing.T
	pki     string
	storage string
	state   string
	address string
	// nbdSocket is where points are exported; empty for nowhere.
	nbdSocket string
	registry  *prometheus.Registry
	stop      func()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, pki: filepath.Join(t.TempDir(), "pki"), storage: t.TempDir(), state: t.TempDir()}
	if _, err := pki.Init(b.pki, "example.org"); err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]string{
		"replica1": "replica", "pve1": "primary", "pve2": "primary", "alice": "operator", "bob": "viewer",
	} {
		var hosts []string
		if role == "replica" {
			hosts = []string{"127.0.0.1"}
		}
		if _, err := pki.Issue(b.pki, role, name, hosts); err != nil {
			t.Fatal(err)
		}
	}
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

func (b *bed) credentials(name string) *transport.Credentials {
	b.t.Helper()
	credentials, err := transport.LoadCredentials(filepath.Join(b.pki, name), slog.New(slog.DiscardHandler))
	if err != nil {
		b.t.Fatal(err)
	}
	return credentials
}

func (b *bed) start() {
	b.t.Helper()
	store, err := state.Open(filepath.Join(b.state, "replica.db"))
	if err != nil {
		b.t.Fatal(err)
	}
	files, err := storage.Open(b.storage, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.address, b.registry = listener.Addr().String(), prometheus.NewRegistry()
	host := &daemon.Host{Log: slog.New(slog.DiscardHandler), Registry: b.registry}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p := parts{credentials: b.credentials("replica1"), store: store, files: files, nbdSocket: b.nbdSocket}
	go func() { ended <- serve(ctx, listener, host, p) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for _, err := range []error{<-ended, files.Close(), store.Close()} {
			if err != nil {
				b.t.Error(err)
			}
		}
	}
}

func (b *bed) dial(name string) *grpc.ClientConn {
	b.t.Helper()
	conn, err := transport.Dial(b.address, transport.DialConfig{Credentials: b.credentials(name), Want: transport.RoleReplica})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

func (b *bed) authorize(pattern string) {
	b.t.Helper()
	entry := &vmreplicav1.Authorization{Pattern: pattern}
	_, err := vmreplicav1.NewAuthorizationServiceClient(b.dial("alice")).CreateAuthorization(b.t.Context(),
		&vmreplicav1.CreateAuthorizationRequest{Authorization: entry})
	if err != nil {
		b.t.Fatal(err)
	}
}

const diskSize = 1 << 20

func relationship(uid string) *vmreplicav1.Relationship {
	return &vmreplicav1.Relationship{Vm: "web01", Uid: strings.Repeat(uid, 32), Term: 2}
}

func prepareRequest(uid string, existing bool, size int64) *vmreplicav1.PrepareReplicaRequest {
	return &vmreplicav1.PrepareReplicaRequest{
		Relationship: relationship(uid), UseExisting: existing,
		Disks: []*vmreplicav1.TransferDisk{{Id: "root", SizeBytes: size, LogicalSectorBytes: 512}},
	}
}

func wantReason(t *testing.T, what string, err error, reason string) {
	t.Helper()
	switch {
	case err == nil && reason != "":
		t.Errorf("%s: no error, want %s", what, reason)
	case err != nil && failure.Find(api.FromStatus(err)).Reason != reason:
		t.Errorf("%s: %v, want reason %q", what, api.FromStatus(err), reason)
	}
}

func TestAPrimaryIsAdmittedByAnEntryOnly(t *testing.T) {
	b := newBed(t)
	pve1 := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	hello := &vmreplicav1.HelloRequest{MinVersion: 1, MaxVersion: 1, Proofs: []*vmreplicav1.ProofSpeed{
		{Algorithm: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3, BytesPerSecond: 1 << 30}}}
	answer, err := pve1.Hello(t.Context(), hello)
	if err != nil || answer.FreeBytes != -1 || answer.Authorization != "" {
		t.Errorf("without an entry: %v, %v", answer, err)
	}
	_, err = pve1.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize))
	wantReason(t, "without an entry", err, failure.ReasonNotAuthorized)
	b.authorize("pve*")
	answer, err = pve1.Hello(t.Context(), hello)
	if err != nil || answer.FreeBytes <= 0 || answer.Authorization != "spiffe://example.org/vmreplica/primary/pve*" ||
		answer.Proof != vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3 {
		t.Errorf("with an entry: %v, %v", answer, err)
	}
	hello.MinVersion, hello.MaxVersion = 2, 3
	_, err = pve1.Hello(t.Context(), hello)
	wantReason(t, "another version", err, failure.ReasonUnsupported)
	if _, err = pve1.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		who    string
		named  *vmreplicav1.Relationship
		reason string
	}{
		"the owner":       {"pve1", relationship("a"), ""},
		"another primary": {"pve2", relationship("a"), failure.ReasonNotAuthorized},
		"another uid":     {"pve1", relationship("b"), failure.ReasonNotFound},
		"an older term":   {"pve1", &vmreplicav1.Relationship{Vm: "web01", Uid: strings.Repeat("a", 32), Term: 1}, failure.ReasonStaleTerm},
		"an unknown VM":   {"pve1", &vmreplicav1.Relationship{Vm: "web02", Uid: strings.Repeat("a", 32), Term: 2}, failure.ReasonNotFound},
		"a bad name":      {"pve1", &vmreplicav1.Relationship{Vm: "../x", Uid: strings.Repeat("a", 32), Term: 2}, failure.ReasonInvalidName},
	} {
		_, err := vmreplicav1.NewTransferServiceClient(b.dial(c.who)).Reconcile(t.Context(),
			&vmreplicav1.ReconcileRequest{Relationship: c.named})
		wantReason(t, what, err, c.reason)
	}
	_, err = vmreplicav1.NewTransferServiceClient(b.dial("alice")).Hello(t.Context(), hello)
	wantReason(t, "an operator", err, failure.ReasonNotAuthorized)
}

func TestPreparing(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	pve1 := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	place := filepath.Join(b.storage, "pve1", "web01", "root")

	_, err := pve1.PrepareReplica(t.Context(), prepareRequest("a", true, diskSize))
	wantReason(t, "nothing to adopt", err, failure.ReasonBaseMissing)
	if err == nil || !strings.Contains(api.FromStatus(err).Error(), place) ||
		!strings.Contains(api.FromStatus(err).Error(), "Put the copy there, or leave --use-existing away.") {
		t.Errorf("%v does not name %s", err, place)
	}
	dry := prepareRequest("a", false, diskSize)
	dry.ValidateOnly = true
	answer, err := pve1.PrepareReplica(t.Context(), dry)
	if err != nil || len(answer.Paths) != 1 || answer.Paths[0] != place {
		t.Errorf("a dry run: %v, %v", answer, err)
	}
	if _, err := os.Stat(place); !os.IsNotExist(err) {
		t.Errorf("a dry run made something: %v", err)
	}
	for range 2 {
		answer, err = pve1.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize))
		if err != nil || answer.Paths[0] != place {
			t.Fatalf("%v, %v", answer, err)
		}
	}
	if info, err := os.Stat(place); err != nil || info.Size() != diskSize {
		t.Errorf("made %v, %v", info, err)
	}
	_, err = pve1.PrepareReplica(t.Context(), prepareRequest("b", false, diskSize))
	wantReason(t, "another replication", err, failure.ReasonAlreadyExists)
	_, err = pve1.PrepareReplica(t.Context(), prepareRequest("a", false, 2*diskSize))
	wantReason(t, "another size", err, failure.ReasonSizeMismatch)

	released, err := pve1.ReleaseReplica(t.Context(), &vmreplicav1.ReleaseReplicaRequest{Relationship: relationship("a")})
	if err != nil || len(released.Notes) != 1 || !strings.Contains(released.Notes[0], place) {
		t.Errorf("released: %v, %v", released, err)
	}
	if err := os.WriteFile(place, []byte(strings.Repeat("x", diskSize)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = pve1.PrepareReplica(t.Context(), prepareRequest("b", false, diskSize))
	wantReason(t, "a file in the way", err, failure.ReasonBaseExists)
	_, err = pve1.PrepareReplica(t.Context(), prepareRequest("b", true, 2*diskSize))
	wantReason(t, "adopting another size", err, failure.ReasonSizeMismatch)
	if _, err = pve1.PrepareReplica(t.Context(), prepareRequest("b", true, diskSize)); err != nil {
		t.Fatal(err)
	}
	released, err = pve1.ReleaseReplica(t.Context(), &vmreplicav1.ReleaseReplicaRequest{
		Relationship: relationship("b"), DeleteData: true})
	if err != nil || len(released.Notes) != 1 {
		t.Errorf("released: %v, %v", released, err)
	}
	if _, err := os.Stat(filepath.Dir(place)); !os.IsNotExist(err) {
		t.Errorf("the data is still there: %v", err)
	}
}

func TestWhatIsShown(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	pve1 := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	if _, err := pve1.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	replications := vmreplicav1.NewReplicationServiceClient(b.dial("bob"))
	shown, err := replications.GetReplication(t.Context(), &vmreplicav1.GetReplicationRequest{Name: "web01"})
	if err != nil {
		t.Fatal(err)
	}
	status := shown.Status
	if status.Mode != vmreplicav1.ReplicationMode_REPLICATION_MODE_REPLICA || status.Peer != "pve1" || status.Term != 2 ||
		status.State != vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION ||
		status.Health != vmreplicav1.Health_HEALTH_WARNING || len(status.Disks) != 1 ||
		status.Disks[0].Layers[0].State != vmreplicav1.Layer_STATE_INCOMPLETE {
		t.Errorf("shown %v", shown)
	}
	if families, err := testutil.GatherAndCount(b.registry, "vmreplica_replica_state", "vmreplica_replica_layers"); err != nil || families != 2 {
		t.Errorf("%d metrics, %v", families, err)
	}
	operator := vmreplicav1.NewReplicationServiceClient(b.dial("alice"))
	_, err = operator.SuspendReplication(t.Context(), &vmreplicav1.SuspendReplicationRequest{Name: "web01"})
	wantReason(t, "suspend", err, failure.ReasonWrongRole)
	_, err = operator.DeleteReplication(t.Context(), &vmreplicav1.DeleteReplicationRequest{Name: "web01"})
	wantReason(t, "delete", err, failure.ReasonWrongRole)
	_, err = vmreplicav1.NewResyncServiceClient(b.dial("alice")).StartResync(t.Context(), &vmreplicav1.StartResyncRequest{Vm: "web01"})
	wantReason(t, "resync", err, failure.ReasonWrongRole)

	watch, err := replications.WatchReplications(t.Context(), &vmreplicav1.WatchReplicationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := func() *vmreplicav1.WatchReplicationsResponse {
		t.Helper()
		update, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return update
	}
	if first := next(); first.GetReplication().GetName() != "web01" {
		t.Errorf("the watch begins with %v", first)
	}
	if second := next(); !second.GetSnapshotComplete() {
		t.Errorf("then %v", second)
	}
	request := &vmreplicav1.DeleteReplicationRequest{Name: "web01", Force: true, DeleteReplicaData: true, RequestId: "r1"}
	var notes []string
	for range 2 {
		deleted, err := operator.DeleteReplication(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if notes != nil && strings.Join(notes, "\n") != strings.Join(deleted.Notes, "\n") {
			t.Errorf("a repeated request answers %v, then %v", notes, deleted.Notes)
		}
		notes = deleted.Notes
	}
	if third := next(); third.GetDeleted() != "web01" {
		t.Errorf("after the deletion %v", third)
	}
	events, err := vmreplicav1.NewEventServiceClient(b.dial("bob")).ListEvents(t.Context(), &vmreplicav1.ListEventsRequest{Vm: "web01"})
	if err != nil || len(events.Events) != 2 || events.Events[0].Type != "replication.created" ||
		events.Events[1].Type != "replication.removed" {
		t.Errorf("events %v, %v", events, err)
	}
}

func TestAuthorizations(t *testing.T) {
	b := newBed(t)
	operator := vmreplicav1.NewAuthorizationServiceClient(b.dial("alice"))
	request := &vmreplicav1.CreateAuthorizationRequest{RequestId: "r1",
		Authorization: &vmreplicav1.Authorization{Pattern: "pve1", QuotaBytes: 10 << 20}}
	first, err := operator.CreateAuthorization(t.Context(), request)
	if err != nil || first.Pattern != "spiffe://example.org/vmreplica/primary/pve1" {
		t.Fatalf("%v, %v", first, err)
	}
	again, err := operator.CreateAuthorization(t.Context(), request)
	if err != nil || !proto.Equal(first, again) {
		t.Errorf("repeated: %v, %v", again, err)
	}
	request.RequestId = "r2"
	_, err = operator.CreateAuthorization(t.Context(), request)
	wantReason(t, "the same entry", err, failure.ReasonAlreadyExists)
	_, err = vmreplicav1.NewAuthorizationServiceClient(b.dial("bob")).CreateAuthorization(t.Context(), request)
	wantReason(t, "a viewer", err, failure.ReasonNotAuthorized)
	changed, err := operator.UpdateAuthorization(t.Context(), &vmreplicav1.UpdateAuthorizationRequest{
		Authorization: &vmreplicav1.Authorization{Pattern: "pve1", QuotaBytes: 1},
		UpdateMask:    &fieldmaskpb.FieldMask{Paths: []string{"quota_bytes"}}})
	if err != nil || changed.QuotaBytes != 1 {
		t.Errorf("changed: %v, %v", changed, err)
	}
	_, err = vmreplicav1.NewTransferServiceClient(b.dial("pve1")).PrepareReplica(t.Context(), prepareRequest("a", false, diskSize))
	wantReason(t, "over the quota", err, failure.ReasonQuotaExceeded)

	stream, err := vmreplicav1.NewTransferServiceClient(b.dial("pve1")).Transfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	if _, err := operator.DeleteAuthorization(t.Context(), &vmreplicav1.DeleteAuthorizationRequest{Pattern: "pve1"}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the stream answered")
		}
	case <-time.After(5 * time.Second):
		t.Error("the stream of a primary without access lives on")
	}
	list, err := operator.ListAuthorizations(t.Context(), &vmreplicav1.ListAuthorizationsRequest{})
	if err != nil || len(list.Authorizations) != 0 {
		t.Errorf("left %v, %v", list, err)
	}
}

func TestRecordsSurviveARestart(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	pve1 := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	if _, err := pve1.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	update := &vmreplicav1.UpdateAgentRequest{Settings: &vmreplicav1.AgentSettings{MaxTransfers: 3},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"max_transfers"}}}
	_, err := vmreplicav1.NewAgentServiceClient(b.dial("alice")).UpdateAgent(t.Context(), update)
	wantReason(t, "settings of a primary", err, failure.ReasonWrongRole)
	b.stop()
	b.start()
	agent, err := vmreplicav1.NewAgentServiceClient(b.dial("bob")).GetAgent(t.Context(), &vmreplicav1.GetAgentRequest{})
	if err != nil || agent.Role != vmreplicav1.Role_ROLE_REPLICA {
		t.Errorf("after a restart: %v, %v", agent, err)
	}
	record, err := vmreplicav1.NewTransferServiceClient(b.dial("pve1")).Reconcile(t.Context(),
		&vmreplicav1.ReconcileRequest{Relationship: relationship("a")})
	if err != nil || !record.Incomplete || record.Transfer != "" {
		t.Errorf("after a restart: %v, %v", record, err)
	}
}
