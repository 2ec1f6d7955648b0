package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"strings"
	"time"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// Authority is what Init made.
type Authority struct {
	TrustDomain string
	NotAfter    time.Time
	// Path is the authority's certificate.
	Path string
}

// Init makes an authority for ten years in directory, which is made if it is missing; an empty trust domain means
// DefaultTrustDomain. Where there is an authority already it fails, class Exists, and changes nothing.
func Init(directory, trustDomain string) (Authority, error) {
	if trustDomain == "" {
		trustDomain = DefaultTrustDomain
	}
	if !trustDomainPattern.MatchString(trustDomain) {
		return Authority{}, failure.New(failure.Invalid, failure.ReasonInvalidName,
			"trust domain %q is not allowed", trustDomain).
			Try("Use lower-case letters, digits, '.', '_' or '-', beginning and ending with a letter or digit.")
	}
	if err := makeDir(directory); err != nil {
		return Authority{}, err
	}
	dir, err := openDir(directory)
	if err != nil {
		return Authority{}, err
	}
	defer dir.Close()
	return initIn(dir, trustDomain)
}

// initIn makes the authority: the key, then the certificate, which is what makes it one.
func initIn(dir durable.Dir, trustDomain string) (Authority, error) {
	if existing, err := readFile(dir, authorityFile); err != nil {
		return Authority{}, err
	} else if existing != nil {
		return Authority{}, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"there is an authority already: %s", dir.Path(authorityFile)).
			Try("Issue certificates with it, or give another directory.")
	}
	key, err := authorityKey(dir)
	if err != nil {
		return Authority{}, err
	}
	return signAuthority(dir, key, trustDomain)
}

// authorityKey makes the key, or finds the one that an interrupted Init left.
func authorityKey(dir durable.Dir) (*ecdsa.PrivateKey, error) {
	existing, err := readFile(dir, authorityKeyFile)
	if err != nil {
		return nil, err
	}
	if existing != nil {
		return usableKey(dir, existing)
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(dir, authorityKeyFile, encoded)
}

func usableKey(dir durable.Dir, text []byte) (*ecdsa.PrivateKey, error) {
	key, err := decodeKey(text)
	if err != nil {
		return nil, failure.New(failure.Corrupt, failure.ReasonInvalidArgument, "%s cannot be used: %w",
			dir.Path(authorityKeyFile), err).Try("Put the authority's key back, or begin in another directory.")
	}
	return key, nil
}

func signAuthority(dir durable.Dir, key *ecdsa.PrivateKey, trustDomain string) (Authority, error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "vmreplica authority of " + trustDomain},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
		NotBefore:             now.Add(-clockAllowance),
		NotAfter:              now.AddDate(authorityYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Authority{}, fmt.Errorf("sign the authority: %w", err)
	}
	if err := writeFile(dir, authorityFile, encodeCertificate(encoded)); err != nil {
		return Authority{}, err
	}
	return Authority{TrustDomain: trustDomain, NotAfter: template.NotAfter.UTC().Truncate(time.Second),
		Path: dir.Path(authorityFile)}, nil
}

// signer is an authority that can sign.
type signer struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	text        []byte
	trustDomain string
}

// openSigner reads an authority and checks that it may still sign.
func openSigner(dir durable.Dir) (*signer, error) {
	text, err := readFile(dir, authorityFile)
	if err != nil {
		return nil, err
	}
	keyText, err := readFile(dir, authorityKeyFile)
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, noAuthority(dir.Path("."))
	}
	if keyText == nil {
		return nil, failure.New(failure.NotFound, failure.ReasonNotFound,
			"the authority's key %s is missing", dir.Path(authorityKeyFile)).
			Try("Issue where the key is kept.")
	}
	key, err := usableKey(dir, keyText)
	if err != nil {
		return nil, err
	}
	certificate, err := decodeCertificate(text)
	if err != nil {
		return nil, failure.New(failure.Corrupt, failure.ReasonInvalidArgument, "%s cannot be used: %w",
			dir.Path(authorityFile), err)
	}
	s := &signer{key: key, certificate: certificate, text: text}
	return s, s.check(dir)
}

func (s *signer) check(dir durable.Dir) error {
	path := dir.Path(authorityFile)
	switch {
	case !s.certificate.IsCA || !s.key.PublicKey.Equal(s.certificate.PublicKey):
		return failure.New(failure.Corrupt, failure.ReasonInvalidArgument,
			"%s is not the certificate of the key beside it", path)
	case time.Now().After(s.certificate.NotAfter):
		return failure.New(failure.Precondition, failure.ReasonExpired,
			"the authority %s ended at %s", path, s.certificate.NotAfter.Format(time.RFC3339)).
			Try("Make a new authority in another directory and issue every certificate again.")
	}
	for _, name := range s.certificate.URIs {
		domain, ok := strings.CutPrefix(name.String(), "spiffe://")
		if ok && trustDomainPattern.MatchString(domain) {
			s.trustDomain = domain
			return nil
		}
	}
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%s names no trust domain", path).
		Try("Use an authority made by vmreplica pki init.")
}
