package replica

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/merge"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// reasons are the health reasons that a viewer is shown of the VM.
func (b *bed) reasons() map[string]*vmreplicav1.HealthReason {
	b.t.Helper()
	shown, err := vmreplicav1.NewReplicationServiceClient(b.dial("bob")).GetReplication(b.t.Context(),
		&vmreplicav1.GetReplicationRequest{Name: "web01"})
	if err != nil {
		b.t.Fatal(err)
	}
	reasons := map[string]*vmreplicav1.HealthReason{}
	for _, reason := range shown.GetStatus().GetHealthReasons() {
		reasons[reason.GetCode()] = reason
	}
	return reasons
}

func (b *bed) wantWarning(code, remedy string) {
	b.t.Helper()
	reason := b.reasons()[code]
	if reason.GetHealth() != vmreplicav1.Health_HEALTH_WARNING || !strings.Contains(reason.GetRemedy(), remedy) {
		b.t.Errorf("want the warning %s with remedy %q, got %v", code, remedy, b.reasons())
	}
}

func TestAReplicaThatProtectsNothingYetWarns(t *testing.T) {
	b := newBed(t)
	b.authorize("pve1")
	client := vmreplicav1.NewTransferServiceClient(b.dial("pve1"))
	if _, err := client.PrepareReplica(t.Context(), prepareRequest("a", false, diskSize)); err != nil {
		t.Fatal(err)
	}
	b.wantWarning(ReasonInitialPending, "vmreplica start-initial web01")
	if _, err := client.BeginTransfer(t.Context(), beginRequest()); err != nil {
		t.Fatal(err)
	}
	b.wantWarning(ReasonInitialRunning, "vmreplica cancel-resync web01")
	_, err := vmreplicav1.NewAuthorizationServiceClient(b.dial("alice")).DeleteAuthorization(t.Context(),
		&vmreplicav1.DeleteAuthorizationRequest{Pattern: "pve1"})
	if err != nil {
		t.Fatal(err)
	}
	b.wantWarning(failure.ReasonNotAuthorized, "vmreplica authorize spiffe://")
	b.authorize("pve1")
	if reason := b.reasons()[failure.ReasonNotAuthorized]; reason != nil {
		t.Errorf("authorized again: %v", reason)
	}
}

// heldRecord has that many layers that wait.
func heldRecord(waiting int) chain.Record {
	layers := make([]chain.Layer, waiting)
	for i := range layers {
		layers[i].State = chain.Committed
	}
	return chain.Record{Lineage: "l", Disks: []chain.Disk{{ID: "root", Layers: layers}}}
}

func TestATransferThatGoesOnOrWaitsWarns(t *testing.T) {
	full := &fullness{disk: "root", message: "no room", since: time.Unix(1, 0)}
	resync := &chain.Transfer{Kind: replication.KindResync}
	reading := []chain.Reader{{Who: "an export for alice"}}
	for name, c := range map[string]struct {
		seen  observation
		codes string
	}{
		"held by a reader": {observation{record: heldRecord(2), readers: reading, merge: merge.Status{Held: true}}, ReasonBeingRead},
		"read with room":   {observation{record: heldRecord(1), readers: reading, merge: merge.Status{Held: true}}, ""},
		"at rest":          {observation{record: chain.Record{Lineage: "l"}}, ""},
		"a verify":         {observation{record: chain.Record{Lineage: "l", Transfer: &chain.Transfer{Kind: replication.KindVerify}}}, ""},
		"a resync":         {observation{record: chain.Record{Lineage: "l", Transfer: resync}}, ReasonResyncRunning},
		"a resync without room": {observation{record: chain.Record{Lineage: "l", Transfer: resync}, full: full},
			ReasonResyncRunning + " " + failure.ReasonStorageFull},
	} {
		var codes []string
		for _, reason := range c.seen.healthReasons() {
			if reason.Health != replication.HealthWarning || reason.Remedy == "" {
				t.Errorf("%s: %+v", name, reason)
			}
			codes = append(codes, reason.Code)
		}
		if got := strings.Join(codes, " "); got != c.codes {
			t.Errorf("%s: %q, want %q", name, got, c.codes)
		}
	}
}

// A transfer that was discarded waits for nothing, and the next one that does is told of.
func TestAFullStorageIsForgottenWithItsTransfer(t *testing.T) {
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
		o.Full("web01", "root", "no room")
		if full, waits := o.waiting("web01"); !waits || full.message != "no room" {
			t.Errorf("waits %t: %+v", waits, full)
		}
		o.Ended("web01")
		if _, waits := o.waiting("web01"); waits {
			t.Error("it waits after its end")
		}
	}
	told, err := events.List("web01", 0, 100)
	if err != nil || len(told) != 2 || told[1].Type != event.TypeStorageFull {
		t.Errorf("told %v, %v", told, err)
	}
}

// What a resync needs to go on is what its merge lacks and a segment; at its end what its merge lacks.
func TestTheRoomThatATransferNeeds(t *testing.T) {
	files, err := storage.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	const size, received, segment = int64(256 << 20), int64(32 << 20), int64(16 << 20)
	if err := files.CreateBase(chain.Base{File: "root"}, size, 512, false); err != nil {
		t.Fatal(err)
	}
	if err := files.Balloon("root.layer").Grow(received); err != nil {
		t.Fatal(err)
	}
	d := &chain.Disk{ID: "root", SizeBytes: size, Base: chain.Base{File: "root"},
		Layers: []chain.Layer{{File: "root.layer", State: chain.Receiving}}}
	used := &usage{storage: files}
	for _, c := range []struct {
		held, need, all int64
		cursor          chain.TransferDisk
	}{
		{0, received + segment + leastRoom, received + 2*received*7, chain.TransferDisk{Segment: 2}},
		{received / 2, received/2 + segment + leastRoom, received/2 + 2*received*7, chain.TransferDisk{Segment: 2}},
		{received / 2, received / 2, received / 2, chain.TransferDisk{Segment: 16, Proven: true}},
		{received, 0, 0, chain.TransferDisk{Segment: 16, Proven: true}},
	} {
		if err := files.Balloon("root.balloon").Grow(c.held); err != nil {
			t.Fatal(err)
		}
		need, all, err := used.roomFor(d, &c.cursor)
		if err != nil || need != c.need || all != c.all {
			t.Errorf("%d held, %+v: needs %d, %d in all, want %d and %d; %v", c.held, c.cursor, need, all, c.need, c.all, err)
		}
	}
}

func TestADeviceNeedsRoomForTheLayerOnly(t *testing.T) {
	files, err := storage.Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	used := &usage{storage: files}
	for want, base := range map[int64]chain.Base{
		16<<20 + leastRoom: {Device: "/dev/vg0/web01"},
		0:                  {Device: "/dev/vg0/web01", Incomplete: true},
	} {
		if need, _, err := used.roomFor(&chain.Disk{ID: "root", SizeBytes: 1 << 30, Base: base}, nil); err != nil || need != want {
			t.Errorf("%+v needs %d bytes, want %d; %v", base, need, want, err)
		}
	}
}
