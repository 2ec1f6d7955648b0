package transport_test

import (
	"strings"
	"testing"

	"vmreplica/internal/pki"
	"vmreplica/transport"
)

func TestParseIdentityTakesOneSpellingOnly(t *testing.T) {
	good := "spiffe://example.org/vmreplica/primary/host-a"
	identity, err := transport.ParseIdentity(good)
	want := transport.Identity{TrustDomain: "example.org", Role: transport.RolePrimary, Name: "host-a"}
	if err != nil || identity != want || identity.String() != good {
		t.Fatalf("parse %s: %v, %v", good, identity, err)
	}
	for _, bad := range []string{
		"", "spiffe://", "spiffe:///vmreplica/primary/a", "https://d/vmreplica/primary/a",
		"SPIFFE://d/vmreplica/primary/a", "spiffe://D/vmreplica/primary/a", "spiffe://d:1/vmreplica/primary/a",
		"spiffe://u@d/vmreplica/primary/a", "spiffe://d/vmreplica/primary", "spiffe://d/vmreplica/primary/",
		"spiffe://d/vmreplica/primary/a/", "spiffe://d/vmreplica/primary/a/b", "spiffe://d//vmreplica/primary/a",
		"spiffe://d/vmreplica/Primary/a", "spiffe://d/vmreplica/admin/a", "spiffe://d/other/primary/a",
		"spiffe://d/vmreplica/primary/a?x", "spiffe://d/vmreplica/primary/a#x", "spiffe://d/vmreplica/primary/a%2f",
		"spiffe://d/vmreplica/primary/..", "spiffe://d/vmreplica/primary/.a", "spiffe://d/vmreplica/primary/a\n",
		"spiffe://d/vmreplica/primary/" + strings.Repeat("a", 64),
		"spiffe://" + strings.Repeat("d", 300) + "/vmreplica/primary/a",
	} {
		if identity, err := transport.ParseIdentity(bad); err == nil {
			t.Errorf("%q became %v", bad, identity)
		}
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://d/vmreplica/viewer/n")
	f.Fuzz(func(t *testing.T, text string) {
		if identity, err := transport.ParseIdentity(text); err == nil && identity.String() != text {
			t.Errorf("%q became %q", text, identity)
		}
	})
}

func TestWhatPKIIssuesCanBeLoaded(t *testing.T) {
	authority := newPKI(t, "example.org")
	for _, role := range []transport.Role{
		transport.RolePrimary, transport.RoleReplica, transport.RoleOperator, transport.RoleViewer,
	} {
		dir := authority.issue(role, "a-"+string(role))
		want := transport.Identity{TrustDomain: "example.org", Role: role, Name: "a-" + string(role)}
		credentials := load(t, dir)
		if credentials.Identity() != want {
			t.Errorf("loaded %v, want %v", credentials.Identity(), want)
		}
		renewed, err := pki.Issue(authority.dir, string(role), "a-"+string(role), nil)
		if err != nil || !renewed.Renewed || renewed.Identity != want.String() {
			t.Fatalf("renew: %+v, %v", renewed, err)
		}
		before := credentials.Serial()
		if err := credentials.Reload(); err != nil || credentials.Serial() == before {
			t.Errorf("reload after a renewal: %v", err)
		}
		if !credentials.NotAfter().Equal(renewed.NotAfter) {
			t.Errorf("ends %s, issued until %s", credentials.NotAfter(), renewed.NotAfter)
		}
	}
}
