package command

import (
	"strings"
	"testing"
	"time"

	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestTimesAsOperatorsSayThem(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 30, 21, 0, 0, 0, berlin)
	for text, want := range map[string]time.Time{
		"":                          {},
		"22:30":                     time.Date(2026, 11, 30, 22, 30, 0, 0, berlin),
		"21:00":                     time.Date(2026, 12, 1, 21, 0, 0, 0, berlin),
		"06:15":                     time.Date(2026, 12, 1, 6, 15, 0, 0, berlin),
		"+2h":                       now.Add(2 * time.Hour),
		"+90m":                      now.Add(90 * time.Minute),
		"+7d":                       now.AddDate(0, 0, 7),
		"+0s":                       now,
		"2026-12-01T03:00:00Z":      time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC),
		"2026-12-01T03:00:00+05:30": time.Date(2026, 11, 30, 21, 30, 0, 0, time.UTC),
	} {
		got, err := parseWhen(text, now)
		if err != nil || !got.Equal(want) || got.IsZero() != (text == "") {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"25:00", "22:60", "soon", "+", "+-1h", "+2", "+999d", "2h", "22", "2026-12-01", "2026-11-30T19:59:59Z"} {
		if got, err := parseWhen(text, now); err == nil || failure.Find(err).Class != failure.Invalid || failure.Find(err).Remedy == "" {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

// A clock that jumps ahead over the time that was asked for has it an hour later, and one that jumps back twice.
func TestClockTimesWhereTheClockIsPutForward(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 29, 1, 0, 0, 0, zone)
	got, err := parseWhen("02:30", now)
	if err != nil || !got.After(now) || got.Sub(now) > 2*time.Hour {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestDiskFlags(t *testing.T) {
	raw := vmreplicav1.DiskFormat_DISK_FORMAT_RAW
	for text, want := range map[string][2]string{
		"/images/web01.img":                    {"/images/web01.img", "web01.img"},
		"/dev/vg0/web01,id=root":               {"/dev/vg0/web01", "root"},
		"/images/a,,b.img,id=ab":               {"/images/a,b.img", "ab"},
		"/images/x.img,format=raw,id=x":        {"/images/x.img", "x"},
		`C:\images\x.img`:                      {`C:\images\x.img`, "x.img"},
		"/images/a=b/x.img":                    {"/images/a=b/x.img", "x.img"},
		"/images/with space/x.img,id=X_1.y-z9": {"/images/with space/x.img", "X_1.y-z9"},
	} {
		got, err := parseDisk(text, diskDefaults{})
		if err != nil || got.GetPath() != want[0] || got.GetId() != want[1] || got.GetFormat() != raw {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "web01.img", "./web01.img", "/images/", "/images/my disk.img", "/images/x.img,id=../x", "/images/x.img,id=",
		"/images/x.img,format=vmdk", "/images/x.img,size=3", "/images/x.img,replica-format=vpc", "/images/x.vhdx", "/images/x.QCOW2", "/images/a,b.img", ",id=x", "/images/x.img,",
	} {
		if got, err := parseDisk(text, diskDefaults{}); err == nil || failure.Find(err).Class != failure.Invalid || failure.Find(err).Remedy == "" {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for text, hint := range map[string]string{
		"/images/x.img,id=a b,format=raw": "--disk /images/x.img,format=raw,id=NAME", "/images/a,,b c.img": "--disk /images/a,,b c.img,id=NAME",
	} {
		if _, err := parseDisk(text, diskDefaults{}); !strings.HasSuffix(failure.Find(err).Remedy, hint) {
			t.Errorf("%q: %q", text, failure.Find(err).Remedy)
		}
	}
	for _, defaults := range []diskDefaults{{format: "vmdk"}, {replicaFormat: "vpc"}, {differencing: "vhdx"}} {
		if _, err := parseDisk("/images/x.img", defaults); err == nil || failure.Find(err).Remedy == "" {
			t.Errorf("%+v was taken: %v", defaults, err)
		}
	}
	if _, err := parseDisks([]string{"/a/disk.img", "/b/disk.img"}, diskDefaults{}); err == nil {
		t.Error("two disks of one id were taken")
	}
	if disks, err := parseDisks([]string{"/a/disk.img", "/b/disk.img,id=b"}, diskDefaults{}); err != nil || len(disks) != 2 {
		t.Errorf("got %v, %v", disks, err)
	}
}

func TestDiskFormats(t *testing.T) {
	const raw, vhd, vhdx, qcow2 = 1, 2, 3, 4
	for text, test := range map[string]struct {
		defaults diskDefaults
		want     [3]vmreplicav1.DiskFormat // of the disk, of the replica's base, of its differencing disks
	}{
		"/i/x.img":            {diskDefaults{}, [3]vmreplicav1.DiskFormat{raw, 0, 0}},
		"/i/x.vhdx":           {diskDefaults{format: "vhdx"}, [3]vmreplicav1.DiskFormat{vhdx, 0, 0}},
		"/i/y.vhdx":           {diskDefaults{format: "raw"}, [3]vmreplicav1.DiskFormat{raw, 0, 0}},
		"/i/x.vhd,format=vhd": {diskDefaults{replicaFormat: "vhdx"}, [3]vmreplicav1.DiskFormat{vhd, vhdx, 0}},
		"/i/x.qcow2,format=qcow2,replica-format=raw": {diskDefaults{format: "vhd", replicaFormat: "vhd"}, [3]vmreplicav1.DiskFormat{qcow2, raw, 0}},
		"/i/x,format=vhd": {diskDefaults{differencing: "qcow2"}, [3]vmreplicav1.DiskFormat{vhd, 0, qcow2}},
	} {
		got, err := parseDisk(text, test.defaults)
		if err != nil || [3]vmreplicav1.DiskFormat{got.Format, got.ReplicaFormat, got.DifferencingFormat} != test.want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestSizesAndRates(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "none": 0, "4096": 4096, "50MiB/s": 50 << 20, "50M": 50 << 20, "1.5GiB": 3 << 29, "2TiB/s": 2 << 40,
		"6MB/s": 6e6, "10 kB": 1e4, "7B": 7,
	} {
		if got, err := parseRate(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "fast", "50 Mbit/s", "1e30", "NaN", "Inf", "MiB", "5MiBB", "0x10", "9000PiB"} {
		if got, err := parseRate(text); err == nil || failure.Find(err).Class != failure.Invalid {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}

func TestLabelsAndDevices(t *testing.T) {
	labels, err := parseLabels([]string{"a=1", "b==2", "c="})
	if err != nil || len(labels) != 3 || labels["b"] != "=2" || labels["c"] != "" {
		t.Errorf("got %v, %v", labels, err)
	}
	for _, text := range []string{"a", "=1"} {
		if _, err := parseLabels([]string{text}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	device, err := parseDevice("db01/data=/dev/vg0/data")
	if err != nil || device.GetVm() != "db01" || device.GetDisk() != "data" || device.GetDevice() != "/dev/vg0/data" {
		t.Errorf("got %v, %v", device, err)
	}
	for _, text := range []string{"db01=/dev/x", "/data=/dev/x", "db01/data=dev/x", "db01/data"} {
		if _, err := parseDevice(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestShellWords(t *testing.T) {
	for text, want := range map[string]string{
		"a.b:7443": "a.b:7443", "": "''", "my dir": "'my dir'", "it's": `'it'\''s'`, "$HOME": "'$HOME'",
	} {
		if got := shellWord(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestExitCodesOfClasses(t *testing.T) {
	for class, want := range map[failure.Class]int{
		failure.Internal: 1, failure.Invalid: 2, failure.NotFound: 3, failure.Exists: 4, failure.Precondition: 4,
		failure.Denied: 6, failure.Unreachable: 5, failure.Exhausted: 1, failure.Conflict: 4, failure.OutOfRange: 4,
		failure.Corrupt: 1, failure.Unsupported: 1, failure.Cancelled: 1,
	} {
		if got := codeOf(class); got != want {
			t.Errorf("class %d: got %d, want %d", class, got, want)
		}
	}
}

func TestOnlyWhatAnAgentDoesOnceIsRepeated(t *testing.T) {
	for request, want := range map[any]bool{
		&vmreplicav1.SuspendReplicationRequest{}:               false,
		&vmreplicav1.SuspendReplicationRequest{RequestId: "x"}: true,
		&vmreplicav1.GetReplicationRequest{}:                   true,
	} {
		if got := repeatable(request); got != want {
			t.Errorf("%T %v: got %v", request, request, got)
		}
	}
}
