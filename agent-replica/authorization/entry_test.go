package authorization

import (
	"strings"
	"testing"

	"vmreplica/internal/failure"
	"vmreplica/transport"
)

const domain = "spiffe://example.org/vmreplica/primary/"

func anyDevice(string) error { return nil }

func primary(name string) transport.Identity {
	return transport.Identity{TrustDomain: "example.org", Role: transport.RolePrimary, Name: name}
}

func TestPatterns(t *testing.T) {
	for pattern, admitted := range map[string]map[string]bool{
		domain + "pve1": {"pve1": true, "pve2": false, "pve11": false},
		domain + "pve*": {"pve1": true, "pve": true, "PVE1": false, "xpve1": false},
		domain + "*":    {"pve1": true, "x": true},
	} {
		entry := Entry{Pattern: pattern}
		if err := entry.check(anyDevice); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for name, want := range admitted {
			if entry.Admits(primary(name)) != want {
				t.Errorf("%s admits %s: %v", pattern, name, !want)
			}
		}
		other := primary("pve1")
		other.TrustDomain = "example.com"
		operator := primary("pve1")
		operator.Role = transport.RoleOperator
		if entry.Admits(other) || entry.Admits(operator) {
			t.Errorf("%s admits another trust domain or role", pattern)
		}
	}
}

func TestPatternsThatAreRefused(t *testing.T) {
	for _, pattern := range []string{
		"", "*", "pve1", "spiffe://*/vmreplica/primary/x", "spiffe://example.org/vmreplica/*",
		"spiffe://example.org/vmreplica/prim*", "spiffe://example.org/vmreplica/operator/x", domain + "p*e", domain + "**",
		domain + "a/b", domain + "../x", domain, "spiffe://example.org/*/primary/x", domain + strings.Repeat("a", 64),
	} {
		if err := (Entry{Pattern: pattern}).check(anyDevice); failure.Find(err).Class != failure.Invalid {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

func TestABareNameIsExpanded(t *testing.T) {
	for name, want := range map[string]string{"pve1": domain + "pve1", "pve*": domain + "pve*", "*": domain + "*",
		domain + "x": domain + "x", "../x": "../x"} {
		if got := Expand(name, "example.org"); got != want {
			t.Errorf("%s expands to %s", name, got)
		}
	}
}

func TestSubdirectories(t *testing.T) {
	for subdirectory, allowed := range map[string]bool{
		"": true, "a": true, "a/b-1/c.d": true, "/a": false, "a/": false, "a//b": false, "..": false, "a/../b": false,
		".": false, "a/.hidden": false, "a\x00b": false, "a/b/c/d/e/f/g/h/i": false,
	} {
		err := Entry{Pattern: domain + "x", Subdirectory: subdirectory}.check(anyDevice)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", subdirectory, err)
		}
	}
	if got := (Entry{}).Directory(primary("pve1"), "web01"); got != "pve1/web01" {
		t.Errorf("the default directory is %s", got)
	}
	if got := (Entry{Subdirectory: "a/b"}).Directory(primary("pve1"), "web01"); got != "a/b/web01" {
		t.Errorf("the stated directory is %s", got)
	}
}

func TestOverlapsAreTheSameBothWays(t *testing.T) {
	for _, c := range []struct {
		one, other string
		overlap    bool
	}{
		{"pve1", "pve1", true}, {"pve1", "pve2", false}, {"pve*", "pve1", true}, {"pve*", "pv*", true}, {"*", "x", true},
		{"a*", "b*", false}, {"pve1*", "pve1", true}, {"pve1*", "pve", false}, {"*", "*", true},
	} {
		one, other := Entry{Pattern: domain + c.one}, Entry{Pattern: domain + c.other}
		if one.overlaps(other) != c.overlap || other.overlaps(one) != c.overlap {
			t.Errorf("%s and %s overlap: %v", c.one, c.other, !c.overlap)
		}
	}
}

func TestDevices(t *testing.T) {
	mapped := Entry{Pattern: domain + "x", Devices: []Device{{"web01", "root", "/dev/vg/a"}}}
	if got := mapped.Device("web01", "root"); got != "/dev/vg/a" {
		t.Errorf("mapped to %q", got)
	}
	if mapped.Device("web01", "data") != "" || mapped.Device("web02", "root") != "" {
		t.Error("another disk is mapped")
	}
	outside := failure.New(failure.Denied, failure.ReasonPathOutside, "outside")
	refuse := func(device string) error {
		if device == "/dev/sda" {
			return outside
		}
		return nil
	}
	for _, devices := range [][]Device{
		{{"web01", "root", "/dev/sda"}},
		{{"web01", "root", "/dev/a"}, {"web01", "root", "/dev/b"}},
		{{"web01", "root", "/dev/a"}, {"web01", "data", "/dev/a"}},
		{{"../x", "root", "/dev/a"}},
		{{"web01", "a/b", "/dev/a"}},
	} {
		if err := (Entry{Pattern: domain + "x", Devices: devices}).check(refuse); err == nil {
			t.Errorf("%v was accepted", devices)
		}
	}
}

func TestQuota(t *testing.T) {
	for _, c := range []struct {
		quota, used, more int64
		refused           bool
	}{
		{0, 1 << 60, 1 << 60, false}, {100, 40, 60, false}, {100, 40, 61, true}, {100, 100, 0, false}, {100, 101, 0, true},
		{100, 0, 1<<63 - 1, true}, {100, 1<<63 - 1, 1, true},
	} {
		err := Entry{Pattern: domain + "x", QuotaBytes: c.quota}.CheckQuota(c.used, c.more)
		if (err != nil) != c.refused {
			t.Errorf("quota %d, used %d, %d more: %v", c.quota, c.used, c.more, err)
		}
		if err != nil && failure.Find(err).Reason != failure.ReasonQuotaExceeded {
			t.Errorf("reason %s", failure.Find(err).Reason)
		}
	}
}
