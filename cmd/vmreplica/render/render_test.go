package render_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestGoldenOutput(t *testing.T) {
	both := &vmreplicav1.ListReplicationsResponse{Replications: []*vmreplicav1.Replication{ill(), well()}}
	for name, print := range map[string]func(render.Printer) error{
		"replications": func(p render.Printer) error { return p.Replications(both) },
		"resync":       func(p render.Printer) error { return p.Resync(done()) },
		"resyncs": func(p render.Printer) error {
			return p.Resyncs(&vmreplicav1.ListResyncsResponse{Resyncs: []*vmreplicav1.Resync{running(420), done()}})
		},
		"agent": func(p render.Printer) error { return p.Agent(anAgent()) },
		"authorizations": func(p render.Printer) error {
			return p.Authorizations(&vmreplicav1.ListAuthorizationsResponse{Authorizations: []*vmreplicav1.Authorization{anEntry(), {Pattern: "spiffe://x/vmreplica/primary/p2"}}})
		},
	} {
		for _, format := range []render.Format{render.Table, render.Wide, render.JSON, render.YAML} {
			golden(t, name+"."+string(format), format, print)
		}
	}
}

func TestGoldenPages(t *testing.T) {
	golden(t, "describe-well.table", render.Table, func(p render.Printer) error { return p.Describe(well(), done()) })
	golden(t, "describe-ill.table", render.Table, func(p render.Printer) error { return p.Describe(ill(), nil) })
	golden(t, "connection.table", render.Table, func(p render.Printer) error {
		return p.Connection("the primary agent p1 at 127.0.0.1:7442", "replica.example:7443", &vmreplicav1.TestConnectionResponse{
			Checks: []*vmreplicav1.ConnectionCheck{
				{Name: "dns", Passed: true, Message: "192.0.2.1", Duration: durationpb.New(1200 * time.Microsecond)},
				{Name: "tcp", Message: "connection refused", Remedy: "Start the replica.", Duration: durationpb.New(300 * time.Millisecond)},
			},
		})
	})
	empty := func(p render.Printer) error { return p.Replications(&vmreplicav1.ListReplicationsResponse{}) }
	golden(t, "none.table", render.Table, empty)
	golden(t, "none.json", render.JSON, empty)
}

func TestGoldenDisks(t *testing.T) {
	info := render.DiskInfo{
		Path: "/images/web01.avhdx", HostBytes: 5 << 20, Info: disk.Info{
			Format: "vhdx", Kind: "differencing", SizeBytes: 6 << 30, FileBytes: 9 << 20, LogicalSectorSize: 4096, UnitBytes: 2 << 20,
			Identity: disk.Identity{0xAB, 15: 1}, Dirty: true, Properties: []disk.Property{{Name: "Creator", Value: "some\x1b[Hbody"}},
			Parent: &disk.Parent{Name: "web01.vhdx", Path: `C:\web01.vhdx`, Format: "vhdx", Identity: disk.Identity{1}},
		},
		Sums: map[disk.Kind]int64{disk.Data: 2 << 20, disk.Absent: 6<<30 - 2<<20},
	}
	for _, format := range []render.Format{render.Table, render.JSON, render.YAML} {
		golden(t, "disk-info."+string(format), format, func(p render.Printer) error { return p.DiskInfo(info) })
		golden(t, "disk-check."+string(format), format, func(p render.Printer) error {
			return errors.Join(p.Finding(disk.Finding{Severity: disk.Leaked, Message: "a cluster at 65536 belongs to nothing"}),
				p.Finding(disk.Finding{Severity: disk.Damaged, Message: "a block\nlies twice"}),
				p.Checked("/images/a", 1, 1), p.Checked("/images/b", 2, 0), p.Checked("/images/c", 0, 0))
		})
		golden(t, "disk-map."+string(format), format, func(p render.Printer) error {
			return errors.Join(p.MapHeading(), p.Extent(disk.Extent{Length: 4096, Kind: disk.Data}),
				p.Extent(disk.Extent{Offset: 4096, Length: 64 << 40, Kind: disk.Absent}))
		})
	}
	golden(t, "disk-unreadable.table", render.Table, func(p render.Printer) error {
		return p.DiskInfo(render.DiskInfo{Path: "/images/x", HostBytes: -1, Unreadable: "it is encrypted",
			Info: disk.Info{Format: "qcow2", Kind: "dynamic", SizeBytes: 512, FileBytes: 1 << 20, LogicalSectorSize: 512}})
	})
}

func TestGoldenEvents(t *testing.T) {
	event := &vmreplicav1.Event{
		Id: 29244, Sequence: 1 << 60, Time: ago(time.Minute), Severity: vmreplicav1.Severity_SEVERITY_INFORMATION,
		Type: "resync.finished", Vm: "web01", Disk: "root", Message: "Resynchronization\nended.", Details: map[string]string{"result": "ok"},
	}
	for _, format := range []render.Format{render.Table, render.Wide, render.JSON, render.YAML} {
		golden(t, "events."+string(format), format, func(p render.Printer) error {
			return errors.Join(p.EventHeading(), p.Event(event), p.Event(&vmreplicav1.Event{Id: 60001, Time: ago(0)}))
		})
	}
}

func anAgent() *vmreplicav1.Agent {
	return &vmreplicav1.Agent{
		Identity: "spiffe://vmreplica/vmreplica/primary/p1", Role: vmreplicav1.Role_ROLE_PRIMARY, Version: "1.2.0",
		StartTime: ago(26 * time.Hour), CertificateExpireTime: timestamppb.New(now.AddDate(0, 3, 0)),
		Settings:       &vmreplicav1.AgentSettings{BandwidthLimitBytesPerSecond: 50 << 20, MaxTransfers: 3},
		PlatformLimits: []string{"Locks of other programs cannot be seen."},
	}
}

func anEntry() *vmreplicav1.Authorization {
	return &vmreplicav1.Authorization{
		Pattern: "spiffe://vmreplica/vmreplica/primary/berlin-*", StorageSubdirectory: "berlin", TrustGroup: "g",
		QuotaBytes: 2 << 40, UsedBytes: 300 << 30, CreateTime: ago(time.Hour),
		Devices: []*vmreplicav1.DeviceMapping{{Vm: "db01", Disk: "data", Device: "/dev/vg0/data"}},
	}
}

// The names that programs rely on, with defaults emitted.
func TestResyncJSONHasItsNames(t *testing.T) {
	var text strings.Builder
	r := done()
	r.Disks[0].BlocksDiffering = 0
	if err := (render.Printer{Out: &text, Format: render.JSON, Now: time.Now}).Resync(r); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Result *string
		Disks  []map[string]any
	}
	if err := json.Unmarshal([]byte(text.String()), &read); err != nil {
		t.Fatal(err)
	}
	if read.Result == nil || len(read.Disks) != 2 {
		t.Fatalf("got %s", text.String())
	}
	for _, name := range []string{"id", "path", "sizeBytes", "blocksCompared", "blocksDiffering", "bytesDiffering",
		"wireBytesSent", "wireBytesReceived", "duration", "root"} {
		if _, ok := read.Disks[0][name]; !ok {
			t.Errorf("disks[0] has no %s", name)
		}
	}
}

func TestFormats(t *testing.T) {
	for _, name := range render.Formats {
		if format, err := render.ParseFormat(name); err != nil || string(format) != name {
			t.Errorf("%s: %v, %v", name, format, err)
		}
	}
	if _, err := render.ParseFormat("xml"); err == nil || failure.Find(err).Class != failure.Invalid {
		t.Errorf("xml: %v", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAnAnswerThatCannotBeWrittenIsAFailure(t *testing.T) {
	for _, format := range []render.Format{render.Table, render.JSON, render.YAML} {
		err := render.Printer{Out: full{}, Format: format, Now: time.Now}.Resync(done())
		var found *failure.Error
		if !errors.As(err, &found) || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		render.Word(vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE): "WaitingForStartResynchronize",
		render.Word(vmreplicav1.Layer_STATE_BASE):                                                   "Base",
		render.Word(vmreplicav1.Health_HEALTH_UNSPECIFIED):                                          "-",
		render.Word(vmreplicav1.Health(77)):                                                         "Unknown(77)",
		render.Size(-1):                                                                             "-",
		render.Size(1023):                                                                           "1023 B",
		render.Size(1024):                                                                           "1.0 KiB",
		render.Size(1<<20 - 1):                                                                      "1.0 MiB",
		render.Size(1 << 62):                                                                        "4.0 EiB",
		render.Rate(50 << 20):                                                                       "50.0 MiB/s",
		render.Span(4560 * time.Millisecond):                                                        "4.6s",
		render.Span(3723 * time.Second):                                                             "1h2m3s",
		render.Distance(now.Add(-42*time.Second), now):                                              "42s ago",
		render.Distance(now.Add(3*time.Hour+time.Second), now):                                      "in 3h",
		render.Distance(now.Add(-47*time.Hour), now):                                                "47h ago",
		render.Distance(now.Add(-50*time.Hour), now):                                                "2d ago",
		render.Distance(now, now):                                                                   "now",
		render.Moment(time.Date(2026, 11, 22, 21, 30, 0, 0, time.UTC), now):                         "2026-11-22 22:30:00 +01:00",
		render.Clean("a\x1b[2Jb\nc\xff\u202e"):                                                      "a[2Jb c\uFFFD",
		render.KindWord(vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY):                                  "verify",
		render.KindWord(vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL):                                 "initial replication",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMonitoring(t *testing.T) {
	warning, unknown, odd := well(), well(), ill()
	warning.Name, warning.Status.Health = "w", vmreplicav1.Health_HEALTH_WARNING
	unknown.Name, unknown.Status.Health = "u", 0
	odd.Status.HealthReasons[0].Message = "a | b"
	for name, c := range map[string]struct {
		vms  []*vmreplicav1.Replication
		code int
		line string
	}{
		"one well": {[]*vmreplicav1.Replication{well()}, render.MonitorOK,
			"VMREPLICA OK - web01 is Replicating | web01_proven_age=180s;;;0 web01_sync_age=180s;;;0 web01_sent=5368709120c web01_failed=0c"},
		"one warns": {[]*vmreplicav1.Replication{well(), warning}, render.MonitorWarning, "VMREPLICA WARNING - w is Replicating | "},
		"one is ill and its words hold a bar": {[]*vmreplicav1.Replication{warning, odd}, render.MonitorCritical,
			"VMREPLICA CRITICAL - w is Replicating; db01: a / b | "},
		"unknown is no warning":         {[]*vmreplicav1.Replication{warning, unknown}, render.MonitorUnknown, "VMREPLICA UNKNOWN - "},
		"critical is worse than unkown": {[]*vmreplicav1.Replication{unknown, ill()}, render.MonitorCritical, "VMREPLICA CRITICAL - "},
		"none":                          {nil, render.MonitorUnknown, "VMREPLICA UNKNOWN - no VM is replicated here"},
	} {
		line, code := render.Monitor(c.vms, now)
		if code != c.code || !strings.HasPrefix(line, c.line) || strings.Count(line, "|") > 1 {
			t.Errorf("%s: %d %q, want %d %q", name, code, line, c.code, c.line)
		}
	}
	if line, code := render.MonitorFailure(errors.New("no | way")); code != 3 || line != "VMREPLICA UNKNOWN - no / way" {
		t.Errorf("%d %q", code, line)
	}
}
