package transport

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The files of a credentials directory, named as in a Kubernetes TLS secret.
const (
	CertificateFile = "tls.crt"
	KeyFile         = "tls.key"
	AuthorityFile   = "ca.crt"
)

// maxCredentialFile bounds what is read of a credentials file, in bytes.
const maxCredentialFile = 1 << 20

// Credentials are one's own certificate and the authorities that are believed, kept up to date with their
// directory, and the connections that were made with them. Methods may be called concurrently.
type Credentials struct {
	dir         string
	log         *slog.Logger
	now         func() time.Time
	interval    time.Duration
	connections *connections

	current atomic.Pointer[material]
	reload  reloadState
}

// material is what one state of the directory holds. It does not change.
type material struct {
	digest      [sha256.Size]byte
	certificate tls.Certificate
	roots       *x509.CertPool
	identity    Identity
	notAfter    time.Time
}

// reloadState is what Reload remembers between two looks.
type reloadState struct {
	mu sync.Mutex
	// failed is the content that could not be used at the last look, zero when it could; warned says whether that
	// was logged.
	failed [sha256.Size]byte
	warned bool
	// used and rejected are told what became of new files; nil ones are told nothing.
	used     func(identity string, notAfter time.Time)
	rejected func(directory string, err error)
}

// LoadCredentials reads the directory's tls.crt, tls.key and ca.crt. It refuses a key that is not the
// certificate's, a certificate that ca.crt does not vouch for, that is not valid now, that names no identity, or
// that lacks the usages of its role. ca.crt may hold several authorities, as during a change from one to the next.
func LoadCredentials(dir string, log *slog.Logger) (*Credentials, error) {
	return loadCredentials(dir, log, time.Now)
}

func loadCredentials(dir string, log *slog.Logger, now func() time.Time) (*Credentials, error) {
	c := &Credentials{dir: dir, log: log, now: now, interval: ReloadInterval}
	c.connections = newConnections(log, now)
	files, err := readCredentialFiles(dir)
	if err != nil {
		return nil, err
	}
	loaded, err := files.parse(now())
	if err != nil {
		return nil, fmt.Errorf("use the certificate in %s: %w", dir, err)
	}
	c.current.Store(loaded)
	return c, nil
}

// Identity is who the certificate says we are. It does not change with a reload.
func (c *Credentials) Identity() Identity { return c.current.Load().identity }

// NotAfter is when the certificate in use ends.
func (c *Credentials) NotAfter() time.Time { return c.current.Load().notAfter }

// CloseIdentity closes every connection, in either direction, whose peer match accepts, and returns how many.
// Streams on them end at once.
func (c *Credentials) CloseIdentity(match func(Identity) bool) int {
	return c.connections.closeIdentity(match)
}

// credentialFiles is the content of a directory at one look.
type credentialFiles struct{ certificate, key, authority []byte }

func readCredentialFiles(dir string) (credentialFiles, error) {
	var files credentialFiles
	for name, content := range map[string]*[]byte{
		CertificateFile: &files.certificate, KeyFile: &files.key, AuthorityFile: &files.authority,
	} {
		read, err := readBounded(filepath.Join(dir, name))
		if err != nil {
			return credentialFiles{}, fmt.Errorf("read credentials: %w", err)
		}
		*content = read
	}
	return files, nil
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxCredentialFile+1))
	if err == nil && len(content) > maxCredentialFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxCredentialFile)
	}
	return content, err
}

// digest tells one content from another.
func (f credentialFiles) digest() [sha256.Size]byte {
	hash := sha256.New()
	for _, content := range [][]byte{f.certificate, f.key, f.authority} {
		fmt.Fprintf(hash, "%d:", len(content))
		hash.Write(content)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// parse checks that the files hold together and may be used at now.
func (f credentialFiles) parse(now time.Time) (*material, error) {
	pair, err := tls.X509KeyPair(f.certificate, f.key)
	if err != nil {
		return nil, fmt.Errorf("pair %s and %s: %w", CertificateFile, KeyFile, err)
	}
	roots, err := parseAuthorities(f.authority)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", AuthorityFile, err)
	}
	chain, err := verifyChain(pair, roots, now)
	if err != nil {
		return nil, err
	}
	identity, err := certificateIdentity(pair.Leaf)
	if err != nil {
		return nil, err
	}
	for _, usage := range roleUsages(identity.Role) {
		if !slices.Contains(pair.Leaf.ExtKeyUsage, usage) {
			return nil, fmt.Errorf("a certificate of role %s must be good for %s", identity.Role, usageName(usage))
		}
	}
	return &material{digest: f.digest(), certificate: pair, roots: roots, identity: identity,
		notAfter: chainEnd([][]*x509.Certificate{chain})}, nil
}

// parseAuthorities reads one or more authority certificates.
func parseAuthorities(text []byte) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s", quote(block.Type))
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !certificate.IsCA {
			return nil, fmt.Errorf("the certificate of %s is not an authority's", quote(certificate.Subject.String()))
		}
		pool.AddCert(certificate)
		found = true
	}
	if !found {
		return nil, errors.New("holds no certificate")
	}
	return pool, nil
}

// verifyChain is our own certificate's way to an authority.
func verifyChain(pair tls.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, encoded := range pair.Certificate[1:] {
		certificate, err := x509.ParseCertificate(encoded)
		if err != nil {
			return nil, fmt.Errorf("read an intermediate certificate of %s: %w", CertificateFile, err)
		}
		intermediates.AddCert(certificate)
	}
	chains, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates,
		CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, fmt.Errorf("check %s against %s: %w", CertificateFile, AuthorityFile, err)
	}
	return chains[0], nil
}

// chainEnd is when the last of the chains stops vouching: each ends with the first of its certificates.
func chainEnd(chains [][]*x509.Certificate) time.Time {
	var latest time.Time
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, certificate := range chain[1:] {
			if certificate.NotAfter.Before(end) {
				end = certificate.NotAfter
			}
		}
		if end.After(latest) {
			latest = end
		}
	}
	return latest
}

// roleUsages is what a certificate of a role must be good for: agents that are called are servers, all but a
// replica call.
func roleUsages(role Role) []x509.ExtKeyUsage {
	switch role {
	case RolePrimary:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case RoleReplica:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	default:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
}

func usageName(usage x509.ExtKeyUsage) string {
	if usage == x509.ExtKeyUsageServerAuth {
		return "server authentication"
	}
	return "client authentication"
}
