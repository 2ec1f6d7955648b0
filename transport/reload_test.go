package transport_test

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/transport"
)

func TestCredentialsThatCannotBeUsedAreRefused(t *testing.T) {
	ours, others := newPKI(t, ""), newPKI(t, "")
	uri := "spiffe://vmreplica/vmreplica/primary/p"
	sound := leaf{uris: []string{uri}, usages: bothUsages}
	swap := func(file string, from testPKI) string {
		dir := ours.directory(ours.sign(sound))
		other := from.directory(from.sign(sound))
		content, err := os.ReadFile(filepath.Join(other, file))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, file), content)
		return dir
	}
	replace := func(file, content string) string {
		dir := ours.directory(ours.sign(sound))
		write(t, filepath.Join(dir, file), []byte(content))
		return dir
	}
	load(t, ours.directory(ours.sign(sound)))
	for sentence, dir := range map[string]string{
		"no such directory":          filepath.Join(t.TempDir(), "none"),
		"another pair's key":         swap("tls.key", ours),
		"another pair's certificate": swap("tls.crt", ours),
		"another authority":          swap("ca.crt", others),
		"an empty authority":         replace("ca.crt", ""),
		"a leaf as the authority":    replace("ca.crt", string(pemText("CERTIFICATE", ours.sign(sound).Certificate[0]))),
		"a torn certificate":         replace("tls.crt", "-----BEGIN CERTIFICATE-----\nMIIB"),
		"a huge file":                replace("tls.crt", strings.Repeat("a", 2<<20)),
		"ended": ours.directory(ours.sign(leaf{uris: []string{uri}, usages: bothUsages,
			notBefore: time.Now().Add(-2 * time.Hour), notAfter: time.Now().Add(-time.Hour)})),
		"not yet valid": ours.directory(ours.sign(leaf{uris: []string{uri}, usages: bothUsages,
			notBefore: time.Now().Add(time.Minute)})),
		"a primary that cannot serve": ours.directory(ours.sign(leaf{uris: []string{uri},
			usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})),
		"a primary that cannot call": ours.directory(ours.sign(leaf{uris: []string{uri},
			usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})),
		"no URI":   ours.directory(ours.sign(leaf{usages: bothUsages})),
		"two URIs": ours.directory(ours.sign(leaf{uris: []string{uri, uri + "2"}, usages: bothUsages})),
	} {
		if _, err := transport.LoadCredentials(dir, discard()); err == nil {
			t.Errorf("%s was loaded", sentence)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: a message of %d bytes", sentence, len(err.Error()))
		}
	}
}

func TestABadNewPairKeepsTheOldAndWarnsOnce(t *testing.T) {
	ours := newPKI(t, "")
	dir := ours.issue(transport.RoleReplica, "r")
	var log logBuffer
	credentials, err := transport.LoadCredentials(dir, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	credentials.Observe(
		func(identity string, notAfter time.Time) { told = append(told, "used "+identity) },
		func(directory string, err error) { told = append(told, "rejected "+directory) })
	serial := credentials.Serial()
	good, err := os.ReadFile(filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tls.key"), []byte("no key"))
	for range 5 {
		credentials.Look()
	}
	if credentials.Serial() != serial || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("after a bad key, log:\n%s", log.String())
	}
	if err := credentials.Reload(); err == nil {
		t.Error("a reload at request says nothing")
	}
	os.Remove(filepath.Join(dir, "tls.crt"))
	for range 3 {
		credentials.Look()
	}
	if strings.Count(log.String(), "level=WARN") != 2 {
		t.Errorf("another fault is warned of, once; log:\n%s", log.String())
	}
	write(t, filepath.Join(dir, "tls.key"), good)
	ours.issue(transport.RoleReplica, "r")
	credentials.Look()
	if credentials.Serial() == serial {
		t.Error("the good new pair is not used")
	}
	want := []string{"rejected " + dir, "rejected " + dir, "used " + credentials.Identity().String()}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestFilesReplacedOneAfterAnotherDoNotWarn(t *testing.T) {
	ours := newPKI(t, "")
	dir := ours.issue(transport.RoleReplica, "r")
	var log logBuffer
	credentials, err := transport.LoadCredentials(dir, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	serial := credentials.Serial()
	before := map[string][]byte{}
	for _, file := range []string{"tls.key", "tls.crt"} {
		if before[file], err = os.ReadFile(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	ours.issue(transport.RoleReplica, "r")
	after, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tls.crt"), before["tls.crt"])
	credentials.Look()
	if credentials.Serial() != serial {
		t.Error("a key without its certificate is used")
	}
	write(t, filepath.Join(dir, "tls.crt"), after)
	credentials.Look()
	if credentials.Serial() == serial || strings.Contains(log.String(), "level=WARN") {
		t.Errorf("after the second file, log:\n%s", log.String())
	}
}

func TestAReloadDoesNotMakeSomebodyElseOfUs(t *testing.T) {
	ours := newPKI(t, "")
	dir := ours.issue(transport.RoleReplica, "r")
	credentials := load(t, dir)
	for _, uri := range []string{"spiffe://vmreplica/vmreplica/primary/r", "spiffe://vmreplica/vmreplica/replica/s"} {
		other := ours.directory(ours.sign(leaf{uris: []string{uri}, usages: bothUsages}))
		for _, file := range []string{"tls.crt", "tls.key"} {
			content, err := os.ReadFile(filepath.Join(other, file))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, file), content)
		}
		if err := credentials.Reload(); err == nil || credentials.Identity().String() == uri {
			t.Errorf("became %s, error %v", credentials.Identity(), err)
		}
	}
}

func TestWatchSeesAChangeWithinItsInterval(t *testing.T) {
	ours := newPKI(t, "")
	// Certificates are made outside the bubble, whose clock stands elsewhere.
	dir, now := ours.issue(transport.RoleReplica, "r"), time.Now()
	credentials, err := transport.LoadCredentialsAt(dir, discard(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	serial := credentials.Serial()
	ours.issue(transport.RoleReplica, "r")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			credentials.Watch(ctx)
		}()
		time.Sleep(transport.ReloadInterval - time.Second)
		synctest.Wait()
		if credentials.Serial() != serial {
			t.Error("looked before the interval")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if credentials.Serial() == serial {
			t.Error("the new certificate is not in use")
		}
		cancel()
		<-ended
	})
}
