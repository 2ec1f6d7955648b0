package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/pki"
)

func initPKI(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "deep", "pki")
	if _, err := pki.Init(dir, "example.org"); err != nil {
		t.Fatal(err)
	}
	return dir
}

func issue(t *testing.T, dir, role, name string, hosts ...string) pki.Certificate {
	t.Helper()
	issued, err := pki.Issue(dir, role, name, hosts)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// pairOf reads a holder's pair; it fails unless key and certificate fit.
func pairOf(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tree is every file below dir with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files[path] = string(content(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func wantClass(t *testing.T, sentence string, err error, class failure.Class) {
	t.Helper()
	if err == nil || failure.Find(err).Class != class {
		t.Errorf("%s: %v", sentence, err)
	}
}

func near(got time.Time, want time.Time) bool { return got.Sub(want).Abs() < time.Minute }

func TestAnAuthorityIsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	made, err := pki.Init(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if made.TrustDomain != pki.DefaultTrustDomain || !near(made.NotAfter, now.AddDate(10, 0, 0)) {
		t.Errorf("made %+v", made)
	}
	pair, err := tls.LoadX509KeyPair(made.Path, filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if !pair.Leaf.IsCA || !near(pair.Leaf.NotBefore, now.Add(-time.Hour)) || pair.Leaf.URIs[0].String() != "spiffe://vmreplica" {
		t.Errorf("the authority is %+v", pair.Leaf)
	}
	before := tree(t, dir)
	_, err = pki.Init(dir, "other")
	wantClass(t, "a second time", err, failure.Exists)
	if after := tree(t, dir); len(after) != len(before) || after[made.Path] != before[made.Path] ||
		after[filepath.Join(dir, "ca.key")] != before[filepath.Join(dir, "ca.key")] {
		t.Error("a second time changed something")
	}
}

func TestAnInterruptedInitIsCompletedWithItsKey(t *testing.T) {
	dir := initPKI(t)
	key := content(t, filepath.Join(dir, "ca.key"))
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Init(dir, "example.org"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key, content(t, filepath.Join(dir, "ca.key"))) {
		t.Error("the key was written over")
	}
	issue(t, dir, "operator", "o")
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	_, err := pki.Init(dir, "example.org")
	wantClass(t, "a certificate whose key is kept elsewhere", err, failure.Exists)
	_, err = pki.Issue(dir, "operator", "o", nil)
	wantClass(t, "issue without the key", err, failure.NotFound)
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	dir := initPKI(t)
	issue(t, dir, "primary", "p")
	issue(t, dir, "primary", "p")
	files := tree(t, dir)
	if len(files) != 5 {
		t.Errorf("%d files", len(files))
	}
	for path := range files {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
}

func TestWhatACertificateSays(t *testing.T) {
	dir := initPKI(t)
	loopback := []string{"localhost", "127.0.0.1", "::1"}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for role, c := range map[string]struct {
		hosts, want []string
		usages      []x509.ExtKeyUsage
	}{
		"primary":  {nil, loopback, both},
		"replica":  {[]string{"Replica.Example", "10.0.0.1", "[fd00::1]", "10.0.0.1"}, append([]string{"replica.example", "10.0.0.1", "fd00::1"}, loopback...), both},
		"operator": {nil, nil, both[:1]},
		"viewer":   {nil, nil, both[:1]},
	} {
		issued := issue(t, dir, role, "x-"+role, c.hosts...)
		leaf := pairOf(t, issued.Directory).Leaf
		want := "spiffe://example.org/vmreplica/" + role + "/x-" + role
		if issued.Identity != want || len(leaf.URIs) != 1 || leaf.URIs[0].String() != want || issued.Renewed {
			t.Errorf("%s: %+v with %v", role, issued, leaf.URIs)
		}
		if !slices.Equal(leaf.ExtKeyUsage, c.usages) || leaf.IsCA {
			t.Errorf("%s: usages %v", role, leaf.ExtKeyUsage)
		}
		now := time.Now()
		if !near(leaf.NotAfter, now.AddDate(1, 0, 0)) || !near(leaf.NotBefore, now.Add(-time.Hour)) ||
			!leaf.NotAfter.Equal(issued.NotAfter) {
			t.Errorf("%s: from %s to %s, said %s", role, leaf.NotBefore, leaf.NotAfter, issued.NotAfter)
		}
		for _, host := range c.want {
			if err := leaf.VerifyHostname(host); err != nil {
				t.Errorf("%s: %v", role, err)
			}
		}
		if names := len(leaf.DNSNames) + len(leaf.IPAddresses); names != len(c.want) || len(issued.Hosts) != names {
			t.Errorf("%s: hosts %v, %v, %v", role, issued.Hosts, leaf.DNSNames, leaf.IPAddresses)
		}
	}
}

func TestOpenSSLBelievesTheCertificates(t *testing.T) {
	dir := initPKI(t)
	issued := issue(t, dir, "replica", "r", "replica.example")
	for _, purpose := range []string{"sslserver", "sslclient"} {
		check := exec.Command("openssl", "verify", "-x509_strict", "-purpose", purpose,
			"-verify_hostname", "replica.example", "-CAfile", filepath.Join(dir, "ca.crt"),
			filepath.Join(issued.Directory, "tls.crt"))
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", purpose, err, out)
		}
	}
}

func TestIssuingAgainRenews(t *testing.T) {
	dir := initPKI(t)
	first := issue(t, dir, "replica", "r", "a.example", "10.1.1.1")
	old := pairOf(t, first.Directory).Leaf
	again := issue(t, dir, "replica", "r")
	renewed := pairOf(t, again.Directory).Leaf
	if !again.Renewed || again.Directory != first.Directory || !slices.Equal(again.Hosts, first.Hosts) {
		t.Errorf("renewed as %+v, was %+v", again, first)
	}
	if renewed.SerialNumber.Cmp(old.SerialNumber) == 0 || bytes.Equal(renewed.RawSubjectPublicKeyInfo, old.RawSubjectPublicKeyInfo) {
		t.Error("serial number or key stayed")
	}
	moved := issue(t, dir, "replica", "r", "b.example")
	if slices.Contains(moved.Hosts, "a.example") || !slices.Contains(moved.Hosts, "b.example") {
		t.Errorf("with new hosts: %v", moved.Hosts)
	}
}

func TestARenewalMendsAPairThatACrashTore(t *testing.T) {
	dir := initPKI(t)
	first := issue(t, dir, "primary", "p")
	other := issue(t, dir, "primary", "q")
	torn := content(t, filepath.Join(other.Directory, "tls.key"))
	if err := os.WriteFile(filepath.Join(first.Directory, "tls.key"), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	issue(t, dir, "primary", "p")
	pairOf(t, first.Directory)
}

func TestANameKeepsItsRole(t *testing.T) {
	dir := initPKI(t)
	issue(t, dir, "viewer", "x")
	before := tree(t, dir)
	_, err := pki.Issue(dir, "operator", "x", nil)
	wantClass(t, "another role", err, failure.Exists)
	for path, text := range tree(t, dir) {
		if before[path] != text {
			t.Errorf("%s changed", path)
		}
	}
}

func TestWhatCannotBeIssuedIsRefusedAndLeavesNothing(t *testing.T) {
	dir := initPKI(t)
	before := len(tree(t, dir))
	for sentence, c := range map[string]struct {
		role, name string
		hosts      []string
	}{
		"a replica without host":  {"replica", "r", nil},
		"an operator with host":   {"operator", "o", []string{"h"}},
		"an unknown role":         {"root", "o", nil},
		"no role":                 {"", "o", nil},
		"no name":                 {"operator", "", nil},
		"a name that leaves":      {"operator", "..", nil},
		"a path":                  {"operator", "a/b", nil},
		"the authority's file":    {"operator", "ca.key", nil},
		"a host with port":        {"primary", "p", []string{"h:1"}},
		"a URL":                   {"primary", "p", []string{"https://h"}},
		"a wildcard":              {"primary", "p", []string{"*.example"}},
		"an address out of range": {"primary", "p", []string{"10.0.0.256"}},
		"an address with a zone":  {"primary", "p", []string{"fe80::1%eth0"}},
		"an empty host":           {"primary", "p", []string{""}},
		"a dot at the end":        {"primary", "p", []string{"h."}},
		"a long label":            {"primary", "p", []string{strings.Repeat("a", 64)}},
		"too many hosts":          {"primary", "p", slices.Repeat([]string{"h"}, 101)},
	} {
		_, err := pki.Issue(dir, c.role, c.name, c.hosts)
		wantClass(t, sentence, err, failure.Invalid)
		if err != nil && failure.Find(err).Remedy == "" && sentence != "too many hosts" {
			t.Errorf("%s: no remedy in %v", sentence, err)
		}
	}
	if after := len(tree(t, dir)); after != before {
		t.Errorf("%d files more", after-before)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left in the directory: %v", entries)
	}
	_, err := pki.Issue(filepath.Join(dir, "none"), "operator", "o", nil)
	wantClass(t, "no authority", err, failure.NotFound)
	_, err = pki.Issue(t.TempDir(), "operator", "o", nil)
	wantClass(t, "an empty directory", err, failure.NotFound)
	for _, domain := range []string{"A", "a/b", "-a", "a b", strings.Repeat("a", 256)} {
		_, err = pki.Init(filepath.Join(t.TempDir(), "pki"), domain)
		wantClass(t, "trust domain "+domain, err, failure.Invalid)
	}
}

func TestAKeyThatIsNotTheAuthoritysDoesNotSign(t *testing.T) {
	dir, other := initPKI(t), initPKI(t)
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), content(t, filepath.Join(other, "ca.key")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pki.Issue(dir, "operator", "o", nil)
	wantClass(t, "another authority's key", err, failure.Corrupt)
}
