package primary

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
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/api"
	"vmreplica/internal/daemon"
	"vmreplica/internal/failure"
	"vmreplica/internal/pki"
	"vmreplica/internal/state"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a primary agent, a replica that prepares and holds nothing, and an operator's connection.
type fixture struct {
	config   *Config
	pki      string
	replica  string
	image    string
	operator *grpc.ClientConn
	host     *daemon.Host
	stop     func()
}

// stub is a replica without a place for data.
type stub struct {
	vmreplicav1.UnimplementedTransferServiceServer
}

func (stub) Hello(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
	return &vmreplicav1.HelloResponse{
		Version: 1, Proof: vmreplicav1.ProofAlgorithm_PROOF_ALGORITHM_BLAKE3, Authorization: "entry", FreeBytes: 1 << 30,
		Codecs: []vmreplicav1.Codec{vmreplicav1.Codec_CODEC_NONE, vmreplicav1.Codec_CODEC_ZSTD}, Time: timestamppb.Now(),
	}, nil
}

func (stub) PrepareReplica(_ context.Context, r *vmreplicav1.PrepareReplicaRequest) (*vmreplicav1.PrepareReplicaResponse, error) {
	return &vmreplicav1.PrepareReplicaResponse{Paths: make([]string, len(r.GetDisks()))}, nil
}

func (stub) ReleaseReplica(context.Context, *vmreplicav1.ReleaseReplicaRequest) (*vmreplicav1.ReleaseReplicaResponse, error) {
	return &vmreplicav1.ReleaseReplicaResponse{Notes: []string{"kept"}}, nil
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{pki: filepath.Join(dir, "pki"), config: NewConfig()}
	if _, err := pki.Init(f.pki, "test"); err != nil {
		t.Fatal(err)
	}
	images, states := filepath.Join(dir, "images"), filepath.Join(dir, "state")
	for _, made := range []string{images, states} {
		if err := os.Mkdir(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.image = filepath.Join(images, "root.raw")
	if err := os.WriteFile(f.image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f.credentials(t, "primary", "host1")
	f.config.TLSDir, f.config.StateDir, f.config.ImageDirs = filepath.Join(f.pki, "host1"), states, []string{images}
	f.serveStub(t)
	f.start(t)
	return f
}

func (f *fixture) credentials(t *testing.T, role, name string) *transport.Credentials {
	t.Helper()
	hosts := []string{"localhost"}
	if role == "operator" {
		hosts = nil
	}
	if _, err := pki.Issue(f.pki, role, name, hosts); err != nil {
		t.Fatal(err)
	}
	made, err := transport.LoadCredentials(filepath.Join(f.pki, name), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (f *fixture) serveStub(t *testing.T) {
	t.Helper()
	server := transport.NewServer(transport.ServerConfig{
		Credentials: f.credentials(t, "replica", "host2"), Translate: api.Status, Log: slog.New(slog.DiscardHandler),
	})
	vmreplicav1.RegisterTransferServiceServer(server, stub{})
	listener := listen(t)
	f.replica = listener.Addr().String()
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	_, port, _ := net.SplitHostPort(f.replica)
	f.replica = "localhost:" + port
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// start runs the agent; stop ends it, and start runs it again on the same state.
func (f *fixture) start(t *testing.T) {
	t.Helper()
	f.host = &daemon.Host{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()}
	a := &agent{host: f.host, began: time.Now(), requests: state.Requests{Clock: time.Now}}
	if err := a.open(f.config); err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.serve(ctx, listener) }()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	operator, err := transport.Dial("localhost:"+port, transport.DialConfig{Credentials: f.credentials(t, "operator", "op")})
	if err != nil {
		t.Fatal(err)
	}
	f.operator = operator
	stopped := false
	f.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for _, err := range []error{operator.Close(), <-done, a.close()} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(func() { f.stop() })
}

func (f *fixture) replications() vmreplicav1.ReplicationServiceClient {
	return vmreplicav1.NewReplicationServiceClient(f.operator)
}

func (f *fixture) resyncs() vmreplicav1.ResyncServiceClient {
	return vmreplicav1.NewResyncServiceClient(f.operator)
}

func (f *fixture) asked(name string) *vmreplicav1.CreateReplicationRequest {
	return &vmreplicav1.CreateReplicationRequest{Replication: &vmreplicav1.Replication{
		Name: name, Labels: map[string]string{"tier": "gold"}, Spec: &vmreplicav1.ReplicationSpec{
			ReplicaAddress: f.replica,
			Disks: []*vmreplicav1.DiskSpec{
				{Id: "root", Path: f.image, Format: vmreplicav1.DiskFormat_DISK_FORMAT_RAW},
			},
		},
	}}
}

func (f *fixture) enable(t *testing.T) *vmreplicav1.Replication {
	t.Helper()
	made, err := f.replications().CreateReplication(t.Context(), f.asked("web01"))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// refused checks what a call that must not work answers.
func refused(t *testing.T, err error, class failure.Class, reason string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it worked, want %s", reason)
	}
	found := failure.Find(api.FromStatus(err))
	if found.Class != class || found.Reason != reason {
		t.Fatalf("got class %d, %s: %v; want class %d, %s", found.Class, found.Reason, found, class, reason)
	}
}

func TestEnableShowsWhatIs(t *testing.T) {
	f := newFixture(t)
	made := f.enable(t)
	status := made.GetStatus()
	if status.GetState() != vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION ||
		status.GetMode() != vmreplicav1.ReplicationMode_REPLICATION_MODE_PRIMARY || status.GetPeer() != "host2" ||
		status.GetHealth() != vmreplicav1.Health_HEALTH_WARNING || len(status.GetHealthReasons()) != 1 ||
		status.GetDisks()[0].GetSizeBytes() != 1<<20 || made.GetEtag() == "" || made.GetUid() == "" {
		t.Fatalf("%v", made)
	}
	list, err := f.replications().ListReplications(t.Context(), &vmreplicav1.ListReplicationsRequest{PageSize: 1})
	if err != nil || len(list.GetReplications()) != 1 || list.GetNextPageToken() != "" {
		t.Fatalf("%v, %v", list, err)
	}
	events, err := vmreplicav1.NewEventServiceClient(f.operator).ListEvents(t.Context(), &vmreplicav1.ListEventsRequest{})
	if err != nil || len(events.GetEvents()) != 1 || events.GetEvents()[0].GetVm() != "web01" {
		t.Fatalf("%v, %v", events, err)
	}
	f.stop()
	f.start(t)
	again, err := f.replications().GetReplication(t.Context(), &vmreplicav1.GetReplicationRequest{Name: "web01"})
	if err != nil || again.GetUid() != made.GetUid() {
		t.Fatalf("after a restart: %v, %v", again, err)
	}
}

func TestCallsThatMustNotWork(t *testing.T) {
	f := newFixture(t)
	f.enable(t)
	outside, relative, format := f.asked("a"), f.asked("b"), f.asked("c")
	outside.Replication.Spec.Disks[0].Path = "/etc/hostname"
	relative.Replication.Spec.Disks[0].Path = "root.raw"
	format.Replication.Spec.Disks[0].Format = 0
	away := f.asked("d")
	away.Replication.Spec.ReplicaAddress = "localhost:1"
	away.Replication.Spec.Disks[0].Path = filepath.Join(filepath.Dir(f.image), "other.raw")
	if err := os.WriteFile(away.Replication.Spec.Disks[0].Path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	create := func(r *vmreplicav1.CreateReplicationRequest) error {
		_, err := f.replications().CreateReplication(t.Context(), r)
		return err
	}
	_, unknown := f.replications().GetReplication(t.Context(), &vmreplicav1.GetReplicationRequest{Name: "nobody"})
	_, verify := f.resyncs().StartResync(t.Context(), &vmreplicav1.StartResyncRequest{
		Vm: "web01", Kind: vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY,
	})
	_, noKind := f.resyncs().StartResync(t.Context(), &vmreplicav1.StartResyncRequest{Vm: "web01"})
	_, tooLate := f.resyncs().StartResync(t.Context(), &vmreplicav1.StartResyncRequest{
		Vm: "web01", Kind: vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL, StartTime: timestamppb.New(time.Now().Add(200 * time.Hour)),
	})
	_, nothing := f.resyncs().CancelResync(t.Context(), &vmreplicav1.CancelResyncRequest{Vm: "web01"})
	_, authorize := vmreplicav1.NewAuthorizationServiceClient(f.operator).CreateAuthorization(t.Context(),
		&vmreplicav1.CreateAuthorizationRequest{})
	_, hello := vmreplicav1.NewTransferServiceClient(f.operator).Hello(t.Context(), &vmreplicav1.HelloRequest{})
	_, page := f.replications().ListReplications(t.Context(), &vmreplicav1.ListReplicationsRequest{PageSize: -1})
	_, mask := f.replications().UpdateReplication(t.Context(), &vmreplicav1.UpdateReplicationRequest{
		Replication: &vmreplicav1.Replication{Name: "web01"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spec.disks"}},
	})
	for name, test := range map[string]struct {
		err    error
		class  failure.Class
		reason string
	}{
		"a path outside":        {create(outside), failure.Denied, failure.ReasonPathOutside},
		"a relative path":       {create(relative), failure.Invalid, failure.ReasonInvalidArgument},
		"a format not stated":   {create(format), failure.Invalid, failure.ReasonInvalidArgument},
		"a replica that is off": {create(away), failure.Unreachable, failure.ReasonReplicaUnreachable},
		"the image of another":  {create(f.asked("web02")), failure.Exists, failure.ReasonAlreadyExists},
		"a name with ../":       {create(f.asked("../x")), failure.Invalid, failure.ReasonInvalidName},
		"an unknown VM":         {unknown, failure.NotFound, failure.ReasonNotFound},
		"a verify too early":    {verify, failure.Precondition, failure.ReasonWrongState},
		"no kind":               {noKind, failure.Invalid, failure.ReasonInvalidArgument},
		"a start next week":     {tooLate, failure.Invalid, failure.ReasonInvalidArgument},
		"nothing to cancel":     {nothing, failure.Precondition, failure.ReasonWrongState},
		"a replica's service":   {authorize, failure.Precondition, failure.ReasonWrongRole},
		"a page of minus one":   {page, failure.Invalid, failure.ReasonInvalidArgument},
		"a mask of something":   {mask, failure.Invalid, failure.ReasonInvalidArgument},
		"a primary's service":   {hello, failure.Denied, failure.ReasonNotAuthorized},
	} {
		t.Run(name, func(t *testing.T) { refused(t, test.err, test.class, test.reason) })
	}
}

func TestAWatchSendsWhatIsThenWhatChanges(t *testing.T) {
	f := newFixture(t)
	f.enable(t)
	watch, err := f.replications().WatchReplications(t.Context(), &vmreplicav1.WatchReplicationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	receive := func() *vmreplicav1.WatchReplicationsResponse {
		t.Helper()
		update, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return update
	}
	if first := receive(); first.GetReplication().GetName() != "web01" {
		t.Fatalf("first %v", first)
	}
	if !receive().GetSnapshotComplete() {
		t.Fatal("the snapshot is not complete")
	}
	began := time.Now()
	if _, err := f.replications().SuspendReplication(t.Context(), &vmreplicav1.SuspendReplicationRequest{Name: "web01", Reason: "x"}); err != nil {
		t.Fatal(err)
	}
	if update := receive(); update.GetReplication().GetStatus().GetSuspendReason() != "x" || time.Since(began) > 2*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), update)
	}
	if _, err := f.replications().DeleteReplication(t.Context(), &vmreplicav1.DeleteReplicationRequest{Name: "web01"}); err != nil {
		t.Fatal(err)
	}
	if update := receive(); update.GetDeleted() != "web01" {
		t.Fatalf("after its end: %v", update)
	}
	f.stop() // a watch does not keep the agent from ending
	if _, err := watch.Recv(); err == nil {
		t.Fatal("the watch outlives the agent")
	}
}

func TestAScheduledResyncIsWatchedUntilItIsCancelled(t *testing.T) {
	f := newFixture(t)
	f.enable(t)
	request := &vmreplicav1.StartResyncRequest{
		Vm: "web01", Kind: vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL, RequestId: "r1",
		StartTime: timestamppb.New(time.Now().Add(time.Hour)),
	}
	started, err := f.resyncs().StartResync(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if made, err := f.replications().GetReplication(t.Context(), &vmreplicav1.GetReplicationRequest{Name: "web01"}); err != nil ||
		!made.GetStatus().GetNextResyncTime().AsTime().Equal(started.GetStartTime().AsTime()) {
		t.Fatalf("the time of the next resync is %v, %v", made.GetStatus().GetNextResyncTime(), err)
	}
	f.stop()
	f.start(t)
	if again, err := f.resyncs().StartResync(t.Context(), request); err != nil || again.GetId() != started.GetId() {
		t.Fatalf("the same request again: %v, %v", again, err)
	}
	request.Kind = vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC
	_, err = f.resyncs().StartResync(t.Context(), request)
	refused(t, err, failure.Invalid, failure.ReasonInvalidArgument)
	request.RequestId = "r2"
	_, err = f.resyncs().StartResync(t.Context(), request)
	refused(t, err, failure.Exists, failure.ReasonResyncRunning)
	watch, err := f.resyncs().WatchResync(t.Context(), &vmreplicav1.WatchResyncRequest{Vm: "web01"})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED {
		t.Fatalf("%v, %v", first, err)
	}
	if _, err := f.resyncs().CancelResync(t.Context(), &vmreplicav1.CancelResyncRequest{Vm: "web01"}); err != nil {
		t.Fatal(err)
	}
	if last, err := watch.Recv(); err != nil || last.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_CANCELLED {
		t.Fatalf("%v, %v", last, err)
	}
	if _, err := watch.Recv(); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Fatalf("the watch of an ended resync goes on: %v", err)
	}
}

func TestSettingsAreDurableAndLive(t *testing.T) {
	f := newFixture(t)
	client := vmreplicav1.NewAgentServiceClient(f.operator)
	update := &vmreplicav1.UpdateAgentRequest{
		Settings:   &vmreplicav1.AgentSettings{BandwidthLimitBytesPerSecond: 1 << 20, MaxTransfers: 7},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"bandwidth_limit_bytes_per_second"}},
	}
	changed, err := client.UpdateAgent(t.Context(), update)
	if err != nil || changed.GetSettings().GetBandwidthLimitBytesPerSecond() != 1<<20 || changed.GetSettings().GetMaxTransfers() != 3 {
		t.Fatalf("%v, %v", changed, err)
	}
	for _, wrong := range []*vmreplicav1.AgentSettings{{BandwidthLimitBytesPerSecond: -1}, {MaxTransfers: 65}, {}} {
		_, err := client.UpdateAgent(t.Context(), &vmreplicav1.UpdateAgentRequest{Settings: wrong,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"max_transfers", "bandwidth_limit_bytes_per_second"}}})
		refused(t, err, failure.Invalid, failure.ReasonInvalidArgument)
	}
	f.stop()
	f.start(t)
	kept, err := vmreplicav1.NewAgentServiceClient(f.operator).GetAgent(t.Context(), &vmreplicav1.GetAgentRequest{})
	if err != nil || kept.GetSettings().GetBandwidthLimitBytesPerSecond() != 1<<20 ||
		kept.GetIdentity() != "spiffe://test/vmreplica/primary/host1" {
		t.Fatalf("%v, %v", kept, err)
	}
}

func TestConnectionIsTestedByTheAgent(t *testing.T) {
	f := newFixture(t)
	answer, err := vmreplicav1.NewAgentServiceClient(f.operator).TestConnection(t.Context(),
		&vmreplicav1.TestConnectionRequest{Address: f.replica})
	if err != nil || len(answer.GetChecks()) != 8 || !answer.GetChecks()[7].GetPassed() {
		t.Fatalf("%v, %v", answer, err)
	}
}

func TestMetricsSayWhatTheAPISays(t *testing.T) {
	f := newFixture(t)
	f.enable(t)
	want := `
# HELP vmreplica_replication_health 1 normal, 2 warning, 3 critical.
# TYPE vmreplica_replication_health gauge
vmreplica_replication_health{vm="web01"} 2
# HELP vmreplica_replication_state The state by its number in the API: 3 is replicating.
# TYPE vmreplica_replication_state gauge
vmreplica_replication_state{vm="web01"} 1
# HELP vmreplica_resync_cursor_bytes Bytes before the durable cursor.
# TYPE vmreplica_resync_cursor_bytes gauge
vmreplica_resync_cursor_bytes{disk="root",vm="web01"} 0
`
	if err := testutil.GatherAndCompare(f.host.Registry, strings.NewReader(want), "vmreplica_replication_health",
		"vmreplica_replication_state", "vmreplica_resync_cursor_bytes"); err != nil {
		t.Fatal(err)
	}
	if count, err := testutil.GatherAndCount(f.host.Registry); err != nil || count != 16 {
		t.Fatalf("%d metrics, %v", count, err)
	}
}

func TestConfigSaysWhatIsMissing(t *testing.T) {
	config := NewConfig()
	config.TLSDir, config.StateDir = "/tls", "/state"
	if found := failure.Find(config.Check()); found.Class != failure.Invalid || !strings.Contains(found.Remedy, "--image-dir") {
		t.Fatalf("got %v", found)
	}
	config.Devices = []string{"/dev/vg0/*"}
	if err := config.Check(); err != nil {
		t.Fatal(err)
	}
}
