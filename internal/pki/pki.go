// Package pki makes the certificates of a pair: one authority in a directory, and a subdirectory for each holder
// with tls.crt, tls.key and ca.crt, ready to be copied to where it is used.
//
// Vocabulary. The authority's certificate names the trust domain, spiffe://<trust-domain>; a holder's names its
// role and name, spiffe://<trust-domain>/vmreplica/<role>/<name>. Roles that serve, primary and replica, have the
// hosts by which they are dialled as well.
//
// Invariants. The authority's key is never written over, and a holder never changes its role. Every file is
// replaced whole. Everything is readable by its owner alone.
//
// After a crash. An authority with a key and no certificate is completed by the next Init. A renewal replaces
// ca.crt, then tls.key, then tls.crt; between the last two the pair does not fit, which every reader refuses, and
// issuing again mends it.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// The files. Those of a holder are named as in a Kubernetes TLS secret.
const (
	authorityFile    = "ca.crt"
	authorityKeyFile = "ca.key"
	certificateFile  = "tls.crt"
	keyFile          = "tls.key"
)

// DefaultTrustDomain is the trust domain where none is given.
const DefaultTrustDomain = "vmreplica"

const (
	authorityYears = 10
	holderYears    = 1
	// clockAllowance is how far a certificate begins in the past, for hosts whose clock is slow.
	clockAllowance = time.Hour
	// maxFileSize bounds what is read of a file, in bytes.
	maxFileSize = 1 << 20
)

var trustDomainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$`)

// newKey makes a key: ECDSA P-256, which every TLS library takes.
func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), nil
}

func decodeKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("holds no private key")
	}
	decoded, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := decoded.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("holds a key of another kind (%T)", decoded)
	}
	return key, nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// decodeCertificate reads the first certificate of a file.
func decodeCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("holds no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// makeDir makes the authority's directory, readable by its owner alone, and durably, as what will be in it.
func makeDir(path string) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return fileFailure(err, "find the directory of the authority")
	}
	above, base := filepath.Split(absolute)
	if err := os.MkdirAll(above, 0o700); err != nil {
		return fileFailure(err, "make the directory above the authority's")
	}
	parent, err := durable.OpenDir(above)
	if err != nil {
		return fileFailure(err, "open the directory above the authority's")
	}
	defer parent.Close()
	if err := parent.Mkdir(base); err != nil {
		return fileFailure(err, "make the directory of the authority")
	}
	return nil
}

// openDir opens the authority's directory.
func openDir(path string) (durable.Dir, error) {
	dir, err := durable.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noAuthority(path)
	}
	if err != nil {
		return nil, fileFailure(err, "open the directory of the authority")
	}
	return dir, nil
}

// readFile reads a file whole; nil and no error when there is none.
func readFile(dir durable.Dir, name string) ([]byte, error) {
	file, err := dir.Open(name, durable.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fileFailure(err, "open %s", dir.Path(name))
	}
	defer file.Close()
	size, err := file.Size()
	if err == nil && size > maxFileSize {
		err = fmt.Errorf("it is larger than %d bytes", maxFileSize)
	}
	if err != nil {
		return nil, fileFailure(err, "read %s", dir.Path(name))
	}
	content := make([]byte, size)
	if _, err := file.ReadAt(content, 0); err != nil {
		return nil, fileFailure(err, "read %s", dir.Path(name))
	}
	return content, nil
}

func writeFile(dir durable.Dir, name string, content []byte) error {
	if err := durable.WriteFile(dir, name, content); err != nil {
		return fileFailure(err, "write %s", dir.Path(name))
	}
	return nil
}

func fileFailure(err error, format string, args ...any) error {
	return failure.New(failure.Precondition, failure.ReasonStorageFailed, "%s: %w", fmt.Sprintf(format, args...), err)
}

func noAuthority(path string) error {
	return failure.New(failure.NotFound, failure.ReasonNotFound, "there is no authority in %s", path).
		Try("Make one with: vmreplica pki init --dir %s", path)
}
