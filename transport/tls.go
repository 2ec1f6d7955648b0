package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A peerCheck says which peers are welcome on a connection.
type peerCheck struct {
	// usage is what the peer's certificate must be good for.
	usage x509.ExtKeyUsage
	// roles are the peer's roles that are welcome.
	roles []Role
}

// server is the configuration of one accepted connection.
func (m *material) server(check peerCheck, now func() time.Time) *tls.Config {
	config := m.config(check, now)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = m.roots
	return config
}

// client is the configuration of one dialled connection; the host name is set and checked by the handshake.
func (m *material) client(check peerCheck, now func() time.Time) *tls.Config {
	config := m.config(check, now)
	config.RootCAs = m.roots
	return config
}

func (m *material) config(check peerCheck, now func() time.Time) *tls.Config {
	own := &m.certificate
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Time:                   now,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil },
		// Always ours, whatever authorities the server names: its refusal tells more than our silence.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := check.identify(m.identity.TrustDomain, state)
			return err
		},
	}
}

// peerError is a peer whose certificate is believed and who is not welcome all the same.
type peerError struct{ text string }

func (e *peerError) Error() string { return e.text }

// identify says who the peer of a verified connection is, or why it is not welcome.
func (c peerCheck) identify(trustDomain string, state tls.ConnectionState) (Identity, error) {
	if len(state.VerifiedChains) == 0 {
		return Identity{}, errors.New("the peer's certificate is not verified")
	}
	leaf := state.VerifiedChains[0][0]
	peer, err := certificateIdentity(leaf)
	if err != nil {
		return Identity{}, &peerError{fmt.Sprintf("identify the peer: %v", err)}
	}
	return peer, c.judge(trustDomain, peer, leaf)
}

// judge says why a peer is not welcome, nil when it is.
func (c peerCheck) judge(trustDomain string, peer Identity, leaf *x509.Certificate) error {
	switch {
	case peer.TrustDomain != trustDomain:
		return &peerError{fmt.Sprintf("the peer is %s, of another trust domain than %q", peer, trustDomain)}
	case !slices.Contains(leaf.ExtKeyUsage, c.usage):
		return &peerError{fmt.Sprintf("the certificate of %s is not good for %s", peer, usageName(c.usage))}
	case !slices.Contains(c.roles, peer.Role):
		return &peerError{fmt.Sprintf("the peer is %s, wanted is a %s", peer, c.wanted())}
	}
	return nil
}

func (c peerCheck) wanted() string {
	names := make([]string, len(c.roles))
	for i, role := range c.roles {
		names[i] = string(role)
	}
	return strings.Join(names, " or ")
}
