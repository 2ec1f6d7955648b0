package api_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func asked(change func(*vmreplicav1.ReplicationSpec)) *vmreplicav1.ReplicationSpec {
	raw := vmreplicav1.DiskFormat_DISK_FORMAT_RAW
	spec := &vmreplicav1.ReplicationSpec{
		ReplicaAddress: "replica.example:7443",
		Disks: []*vmreplicav1.DiskSpec{
			{Id: "root", Path: "/images/web01/root.img", Format: raw},
			{
				Path: "/images/web01/data.vhdx", Format: vmreplicav1.DiskFormat_DISK_FORMAT_VHDX, ReplicaFormat: raw,
				DifferencingFormat: vmreplicav1.DiskFormat_DISK_FORMAT_QCOW2, Backing: []string{"/etc/shadow"},
			},
		},
	}
	change(spec)
	return spec
}

func TestSpecComesBackAsItWas(t *testing.T) {
	spec, err := api.SpecFromProto(asked(func(s *vmreplicav1.ReplicationSpec) { s.UseExisting = true }))
	if err != nil {
		t.Fatal(err)
	}
	want := replication.Spec{
		ReplicaAddress: "replica.example:7443", UseExisting: true, Interval: 5 * time.Minute, HRLLimitPercent: 50,
		AutoResync: replication.AutoResync{Mode: replication.AutoResyncWindow, Window: replication.DefaultWindow},
		Disks: []replication.DiskSpec{
			{ID: "root", Path: "/images/web01/root.img", Format: replication.FormatRaw, ReplicaFormat: replication.FormatRaw},
			{
				ID: "data.vhdx", Path: "/images/web01/data.vhdx", Format: replication.FormatVHDX,
				ReplicaFormat: replication.FormatRaw, Differencing: replication.DifferencingQCOW2,
			},
		},
	}
	if !reflect.DeepEqual(spec, want) {
		t.Errorf("got %+v, want %+v", spec, want)
	}
	spec.Disks[0].Backing = []string{"/images/golden.img"}
	shown := api.SpecToProto(spec)
	if got := shown.GetDisks()[0].GetBacking(); len(got) != 1 || got[0] != "/images/golden.img" {
		t.Errorf("the recorded chain shows as %q", got)
	}
	again, err := api.SpecFromProto(shown)
	if err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("back: %+v, %v", again, err)
	}
}

func TestSettingsComeBackAsTheyWere(t *testing.T) {
	limit := int32(0)
	spec, err := api.SpecFromProto(asked(func(s *vmreplicav1.ReplicationSpec) {
		s.Interval, s.RecoveryPoints, s.HrlLimitPercent = durationpb.New(30*time.Second), 24, &limit
		s.QmpSocket = "/run/qemu/web01//qmp.sock"
		s.AutoResync = &vmreplicav1.AutoResync{
			Mode: vmreplicav1.AutoResync_MODE_ALWAYS, Window: "22:00-05:30", TimeZone: "Europe/Berlin", PauseAtEnd: true,
		}
	}))
	want := replication.AutoResync{
		Mode: replication.AutoResyncAlways, Window: replication.Window{Start: 22 * 60, End: 5*60 + 30}, TimeZone: "Europe/Berlin",
		PauseAtEnd: true,
	}
	if err != nil || spec.Interval != 30*time.Second || spec.RecoveryPoints != 24 || spec.HRLLimitPercent != 0 ||
		spec.AutoResync != want || spec.QMPSocket != "/run/qemu/web01/qmp.sock" {
		t.Fatalf("got %+v, %v", spec, err)
	}
	if again, err := api.SpecFromProto(api.SpecToProto(spec)); err != nil || !reflect.DeepEqual(again, spec) {
		t.Errorf("back: %+v, %v", again, err)
	}
}

func TestSpecsThatCanNeverWork(t *testing.T) {
	for name, change := range map[string]func(*vmreplicav1.ReplicationSpec){
		"no disks":                   func(s *vmreplicav1.ReplicationSpec) { s.Disks = nil },
		"a cycle of 4 s":             func(s *vmreplicav1.ReplicationSpec) { s.Interval = durationpb.New(4 * time.Second) },
		"a cycle of 25 h":            func(s *vmreplicav1.ReplicationSpec) { s.Interval = durationpb.New(25 * time.Hour) },
		"25 points":                  func(s *vmreplicav1.ReplicationSpec) { s.RecoveryPoints = 25 },
		"less than no points":        func(s *vmreplicav1.ReplicationSpec) { s.RecoveryPoints = -1 },
		"a limit of 101 percent":     func(s *vmreplicav1.ReplicationSpec) { limit := int32(101); s.HrlLimitPercent = &limit },
		"a window without an end":    func(s *vmreplicav1.ReplicationSpec) { s.AutoResync = &vmreplicav1.AutoResync{Window: "18:30"} },
		"a window at 24:00":          func(s *vmreplicav1.ReplicationSpec) { s.AutoResync = &vmreplicav1.AutoResync{Window: "24:00-05:00"} },
		"a window written otherwise": func(s *vmreplicav1.ReplicationSpec) { s.AutoResync = &vmreplicav1.AutoResync{Window: "8:30-9:00"} },
		"a time zone of nowhere":     func(s *vmreplicav1.ReplicationSpec) { s.AutoResync = &vmreplicav1.AutoResync{TimeZone: "Mars/Base"} },
		"a mode of nobody":           func(s *vmreplicav1.ReplicationSpec) { s.AutoResync = &vmreplicav1.AutoResync{Mode: 77} },
		"a relative monitor":         func(s *vmreplicav1.ReplicationSpec) { s.QmpSocket = "qmp.sock" },
		"65 disks":                   func(s *vmreplicav1.ReplicationSpec) { s.Disks = make([]*vmreplicav1.DiskSpec, 65) },
		"a relative path":            func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Path = "root.img" },
		"no path":                    func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Path = "" },
		"a path with NUL":            func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Path = "/a\x00b" },
		"an endless path":            func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Path = "/" + strings.Repeat("a", 5000) },
		"the root directory":         func(s *vmreplicav1.ReplicationSpec) { s.Disks[1].Path = "/" },
		"a format not said":          func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Format = 0 },
		"an unknown format":          func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Format = 77 },
		"a replica's of 77":          func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].ReplicaFormat = 77 },
		"raw differencing":           func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].DifferencingFormat = 1 },
		"an id that climbs":          func(s *vmreplicav1.ReplicationSpec) { s.Disks[0].Id = "../root" },
		"two of one id":              func(s *vmreplicav1.ReplicationSpec) { s.Disks[1].Id = "root" },
		"one path twice":             func(s *vmreplicav1.ReplicationSpec) { s.Disks[1].Path = "/images//web01/root.img" },
		"no address":                 func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = "" },
		"no port":                    func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = "replica.example" },
		"no host":                    func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = ":7443" },
		"a port of 0":                func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = "a:0" },
		"a port by name":             func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = "a:https" },
		"a port too high":            func(s *vmreplicav1.ReplicationSpec) { s.ReplicaAddress = "a:65536" },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := api.SpecFromProto(asked(change))
			if err == nil || failure.Find(err).Class != failure.Invalid {
				t.Errorf("got %v, want a failure of class Invalid", err)
			}
		})
	}
	if _, err := api.SpecFromProto(nil); failure.Find(err).Class != failure.Invalid {
		t.Errorf("no spec: %v", err)
	}
}

func TestHealthReasonOnTheWire(t *testing.T) {
	reason := replication.HealthReason{
		Code: "STORAGE_FULL", Health: replication.HealthWarning, Message: "No space.", Remedy: "Make room.",
		Since: time.Date(2026, 11, 22, 10, 0, 0, 5, time.UTC), Disk: "root",
	}
	want := &vmreplicav1.HealthReason{
		Code: "STORAGE_FULL", Health: vmreplicav1.Health_HEALTH_WARNING, Message: "No space.", Remedy: "Make room.",
		Since: timestamppb.New(reason.Since), Disk: "root",
	}
	if got := api.HealthReasonToProto(reason); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTimes(t *testing.T) {
	if api.TimeToProto(time.Time{}) != nil || !api.TimeFromProto(nil).IsZero() {
		t.Error("the zero time is not unset")
	}
	if !api.TimeFromProto(&timestamppb.Timestamp{Nanos: -1}).IsZero() {
		t.Error("an impossible time was taken")
	}
	now := time.Now()
	if back := api.TimeFromProto(api.TimeToProto(now)); !back.Equal(now) || back.Location() != time.UTC {
		t.Errorf("%v comes back as %v", now, back)
	}
	if !proto.Equal(api.TimeToProto(now), timestamppb.New(now)) {
		t.Error("a time changed on its way out")
	}
}
