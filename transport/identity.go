package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Role is what the holder of a certificate is.
type Role string

// Roles, as in a certificate's URI.
const (
	RolePrimary  Role = "primary"
	RoleReplica  Role = "replica"
	RoleOperator Role = "operator"
	RoleViewer   Role = "viewer"
)

var allRoles = []Role{RolePrimary, RoleReplica, RoleOperator, RoleViewer}

// Identity is who a certificate says its holder is. It is comparable.
type Identity struct {
	TrustDomain string
	Role        Role
	Name        string
}

// String is spiffe://<trust-domain>/vmreplica/<role>/<name>.
func (i Identity) String() string {
	return fmt.Sprintf("spiffe://%s/vmreplica/%s/%s", i.TrustDomain, i.Role, i.Name)
}

var (
	trustDomainPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$`)
	namePattern        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// ParseIdentity reads spiffe://<trust-domain>/vmreplica/<role>/<name> and refuses every other spelling.
func ParseIdentity(uri string) (Identity, error) {
	rest, ok := strings.CutPrefix(uri, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 4 || parts[1] != "vmreplica" {
		return Identity{}, fmt.Errorf("%s is not spiffe://TRUST-DOMAIN/vmreplica/ROLE/NAME", quote(uri))
	}
	identity := Identity{TrustDomain: parts[0], Role: Role(parts[2]), Name: parts[3]}
	switch {
	case !trustDomainPattern.MatchString(identity.TrustDomain):
		return Identity{}, fmt.Errorf("%s names no valid trust domain", quote(uri))
	case !slices.Contains(allRoles, identity.Role):
		return Identity{}, fmt.Errorf("%s names an unknown role", quote(uri))
	case !namePattern.MatchString(identity.Name):
		return Identity{}, fmt.Errorf("%s names no valid name", quote(uri))
	}
	return identity, nil
}

// certificateIdentity is the identity in a certificate: its one URI name.
func certificateIdentity(certificate *x509.Certificate) (Identity, error) {
	switch len(certificate.URIs) {
	case 0:
		return Identity{}, errors.New("the certificate has no URI name")
	case 1:
		return ParseIdentity(certificate.URIs[0].String())
	default:
		return Identity{}, fmt.Errorf("the certificate has %d URI names instead of one", len(certificate.URIs))
	}
}

// maxQuoted bounds what of a peer's text comes into a message, in bytes.
const maxQuoted = 256

// quote makes a peer's text safe to show.
func quote(text string) string {
	if len(text) > maxQuoted {
		return fmt.Sprintf("%q…", text[:maxQuoted])
	}
	return fmt.Sprintf("%q", text)
}
