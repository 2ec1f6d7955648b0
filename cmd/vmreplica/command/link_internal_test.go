package command

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"vmreplica/internal/failure"
)

func TestACertificateThatIsNotInForcePermitsNothing(t *testing.T) {
	cases := map[string]struct {
		err  error
		code int
	}{
		"expired":                 {x509.CertificateInvalidError{Reason: x509.Expired}, ExitPermission},
		"of no authority of ours": {x509.UnknownAuthorityError{}, ExitPrecondition},
		"not there":               {fs.ErrNotExist, ExitUsage},
		"not readable":            {errors.New("input/output error"), ExitPrecondition},
	}
	for name, test := range cases {
		found := failure.Find(unusable(fmt.Errorf("use the certificate: %w", test.err)))
		if got := codeOf(found.Class); got != test.code || found.Remedy == "" {
			t.Errorf("%s: code %d, want %d, remedy %q", name, got, test.code, found.Remedy)
		}
	}
}
