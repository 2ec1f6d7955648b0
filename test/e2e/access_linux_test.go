package e2e_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func TestRolesAndAuthorities(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(8*mib, 200)
	p.primary.as(viewerName, "get", vm).wants(t, 0, "Replicating")
	p.replica.as(viewerName, "authorizations").wants(t, 0, primaryName)
	p.primary.as(viewerName, "check").wants(t, 0, "OK")
	for _, args := range [][]string{
		{"resync", vm}, {"suspend", vm}, {"remove", vm}, {"agent", "set", "--max-transfers", "2"},
		{"enable", "other", "--disk", p.image(), "--replica", p.reached},
	} {
		p.primary.as(viewerName, args...).wants(t, 6, "viewer")
		// An agent's certificate is no operator's.
		p.primary.as(primaryName, args...).wants(t, 6, "primary")
		p.primary.as(replicaName, args...).wants(t, 6)
	}
	p.replica.as(viewerName, "authorize", "p9").wants(t, 6, "viewer")
	p.replica.as(primaryName, "authorize", "p9").wants(t, 6, "primary")
	// The verb of the one agent, asked of the other.
	p.replica.try("resync", vm).wants(t, 4, "WRONG_ROLE")
	p.primary.try("authorize", "p9").wants(t, 4, "WRONG_ROLE")

	other := filepath.Join(t.TempDir(), "pki")
	tool(t, built+"/vmreplica", "pki", "init", "--dir", other)
	tool(t, built+"/vmreplica", "pki", "issue", "--dir", other, "--role", "operator", "--name", "mallory")
	for _, a := range []*agent{p.primary, p.replica} {
		a.as(filepath.Join(other, "mallory"), "get").wants(t, 6, "NOT_AUTHORIZED", "authority")
		// The command line sees it before it calls; who calls all the same is turned away.
		ended := expired(t)
		a.as(ended, "get").wants(t, 6, "NOT_AUTHORIZED", "expired")
		if out, err := grpcurl(t, ended, a, "list"); err == nil {
			t.Errorf("%s answers an expired certificate: %s", a.program, out)
		}
	}
	p.primary.try("get", vm).wants(t, 0, "Replicating")
}

// expired is the operator's certificate as it would be a day after its end.
func expired(t *testing.T) string {
	t.Helper()
	block := func(name string) []byte {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		decoded, _ := pem.Decode(content)
		if decoded == nil {
			t.Fatalf("%s is not PEM", name)
		}
		return decoded.Bytes
	}
	authority, err := x509.ParseCertificate(block(filepath.Join(shared, "ca.crt")))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := x509.ParsePKCS8PrivateKey(block(filepath.Join(shared, "ca.key")))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(block(filepath.Join(shared, operatorName, "tls.crt")))
	if err != nil {
		t.Fatal(err)
	}
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	made, err := x509.CreateCertificate(rand.Reader, leaf, authority, leaf.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"tls.key", "ca.crt"} {
		tool(t, "cp", filepath.Join(shared, operatorName, name), dir)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDeauthorizeEndsTheTransfer(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.inStep(64*mib, 201)
	p.limit("8MiB/s")
	rewrite(t, p.image(), 1, 202)
	p.primary.do("resync", vm)
	s := p.primary.services()
	eventually(t, "something was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 8*mib })
	p.replica.do("deauthorize", primaryName)
	began := time.Now()
	eventually(t, "the transfer is refused", func() bool { return s.newest(t.Context()).GetReason() == "NOT_AUTHORIZED" })
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the transfer went on for %s", took)
	}
	p.primary.try("describe", vm).wants(t, 0, "NOT_AUTHORIZED", "authorize")
	p.replica.do("authorize", primaryName)
	p.limit("none")
	if s.newest(t.Context()).GetState() == vmreplicav1.ResyncState_RESYNC_STATE_FAILED {
		p.primary.do("resync", vm)
	}
	p.ends(s)
	equal(t, p.image(), p.base())
}

func TestCertificateIsRenewedWithoutARestart(t *testing.T) {
	t.Parallel()
	p := newPair(t, func(p *pair) {
		own := filepath.Join(p.dir, "pki")
		tool(p.t, "cp", "-a", shared, own)
		p.replica.args[3] = filepath.Join(own, replicaName)
	})
	own := filepath.Join(p.dir, "pki")
	expiry := func() string {
		return decode(t, p.replica.do("agent", "get", "-o", "json"), &vmreplicav1.Agent{}).GetCertificateExpireTime().AsTime().String()
	}
	before := expiry()
	time.Sleep(1100 * time.Millisecond) // a certificate's times are whole seconds
	if output, err := exec.Command(built+"/vmreplica", "pki", "issue", "--dir", own, "--role", "replica", "--name", replicaName).CombinedOutput(); err != nil ||
		!strings.Contains(string(output), "Renewed") {
		t.Fatalf("%v: %s", err, output)
	}
	eventually(t, "the renewed certificate is in force", func() bool { return expiry() != before })
	if err := os.WriteFile(filepath.Join(own, replicaName, "tls.crt"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bad one is refused aloud", func() bool {
		said, err := os.ReadFile(p.replica.log)
		return err == nil && strings.Contains(string(said), "level=WARN") || strings.Contains(string(said), "level=ERROR")
	})
	p.replica.try("agent", "get").wants(t, 0)
}
