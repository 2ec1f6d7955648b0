package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"slices"
	"time"

	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Roles a certificate may have.
var roles = []string{"primary", "replica", "operator", "viewer"}

// Certificate is what Issue made.
type Certificate struct {
	// Identity is spiffe://<trust-domain>/vmreplica/<role>/<name>.
	Identity string
	// Hosts are the DNS names and addresses it serves as.
	Hosts    []string
	NotAfter time.Time
	// Directory holds tls.crt, tls.key and ca.crt.
	Directory string
	// Renewed says that there was one before.
	Renewed bool
}

// Issue makes a key and a certificate for one year in directory/name, or renews them there. Hosts are DNS names
// and addresses; loopback is always among those of an agent. A replica needs at least one, a primary none, an
// operator and a viewer may have none. Without hosts a renewal keeps those there were. A name never changes its
// role: class Exists.
func Issue(directory, role, name string, hosts []string) (Certificate, error) {
	names, err := checkRequest(role, name, hosts)
	if err != nil {
		return Certificate{}, err
	}
	dir, err := openDir(directory)
	if err != nil {
		return Certificate{}, err
	}
	defer dir.Close()
	return issueIn(dir, role, name, names)
}

func issueIn(dir durable.Dir, role, name string, names hostNames) (Certificate, error) {
	authority, err := openSigner(dir)
	if err != nil {
		return Certificate{}, err
	}
	holder := identityURL(authority.trustDomain, role, name)
	old, err := previous(dir, name, holder)
	if err != nil {
		return Certificate{}, err
	}
	if names, err = names.complete(role, old); err != nil {
		return Certificate{}, err
	}
	notAfter, err := authority.issue(dir, holder, role, name, names)
	if err != nil {
		return Certificate{}, err
	}
	return Certificate{Identity: holder.String(), Hosts: names.list(), NotAfter: notAfter,
		Directory: dir.Path(name), Renewed: old != nil}, nil
}

func checkRequest(role, name string, hosts []string) (hostNames, error) {
	if !slices.Contains(roles, role) {
		return hostNames{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "role %q is not known", role).
			Try("Use primary, replica, operator or viewer.")
	}
	if err := replication.CheckName(role, name); err != nil {
		return hostNames{}, err
	}
	if name == authorityFile || name == authorityKeyFile {
		return hostNames{}, failure.New(failure.Invalid, failure.ReasonInvalidName,
			"%s name %q is the authority's own", role, name).Try("Choose another name.")
	}
	if !serves(role) && len(hosts) > 0 {
		return hostNames{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a certificate of role %s serves nobody and has no hosts", role).Try("Leave --host away.")
	}
	return parseHosts(hosts)
}

func serves(role string) bool { return role == "primary" || role == "replica" }

func identityURL(trustDomain, role, name string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: fmt.Sprintf("/vmreplica/%s/%s", role, name)}
}

// previous is the certificate that is there already, nil for none.
func previous(dir durable.Dir, name string, holder *url.URL) (*x509.Certificate, error) {
	text, err := readFile(dir, name+"/"+certificateFile)
	if err != nil || text == nil {
		return nil, err
	}
	old, err := decodeCertificate(text)
	path := dir.Path(name + "/" + certificateFile)
	if err != nil {
		return nil, failure.New(failure.Corrupt, failure.ReasonInvalidArgument, "%s cannot be read: %w", path, err).
			Try("Move it away, then issue again.")
	}
	if len(old.URIs) != 1 || old.URIs[0].String() != holder.String() {
		return nil, failure.New(failure.Exists, failure.ReasonAlreadyExists,
			"%s is the certificate of %v, not of %s", path, old.URIs, holder).
			Try("Choose another name, or move that directory away.")
	}
	return old, nil
}

// issue signs and writes: the key before the certificate, so that a certificate never stands beside a key that
// is still to come.
func (s *signer) issue(dir durable.Dir, holder *url.URL, role, name string, names hostNames) (time.Time, error) {
	key, err := newKey()
	if err != nil {
		return time.Time{}, err
	}
	template := s.template(holder, role, name, names)
	encoded, err := x509.CreateCertificate(rand.Reader, template, s.certificate, key.Public(), s.key)
	if err != nil {
		return time.Time{}, fmt.Errorf("sign the certificate: %w", err)
	}
	return template.NotAfter.UTC().Truncate(time.Second), s.write(dir, name, key, encoded)
}

func (s *signer) template(holder *url.URL, role, name string, names hostNames) *x509.Certificate {
	now := time.Now()
	notAfter := now.AddDate(holderYears, 0, 0)
	if s.certificate.NotAfter.Before(notAfter) {
		notAfter = s.certificate.NotAfter
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if serves(role) {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		URIs:                  []*url.URL{holder},
		DNSNames:              names.dns,
		IPAddresses:           names.addresses,
		NotBefore:             now.Add(-clockAllowance),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages,
		BasicConstraintsValid: true,
	}
}

func (s *signer) write(dir durable.Dir, name string, key *ecdsa.PrivateKey, certificate []byte) error {
	encodedKey, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := dir.Mkdir(name); err != nil {
		return fileFailure(err, "make the directory of the certificate")
	}
	if err := writeFile(dir, name+"/"+authorityFile, s.text); err != nil {
		return err
	}
	if err := writeFile(dir, name+"/"+keyFile, encodedKey); err != nil {
		return err
	}
	return writeFile(dir, name+"/"+certificateFile, encodeCertificate(certificate))
}
