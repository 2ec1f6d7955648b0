package daemon

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/event"
	"vmreplica/internal/state/statetest"
)

// certificates tell of one reload and one refusal as soon as they are observed.
type certificates struct{}

func (certificates) Observe(used func(string, time.Time), rejected func(string, error)) {
	used("spiffe://example.org/vmreplica/replica/r", time.Unix(1000, 0))
	rejected("/etc/tls", errors.New("no key"))
}

func TestWhatBecomesOfNewCertificatesIsAnEvent(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	events, err := event.Open(statetest.New(durabletest.New()), log, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	RecordCertificates(certificates{}, events, log)
	told, err := events.List("", 0, 10)
	if err != nil || len(told) != 2 || told[0].Type != event.TypeCertificateReloaded ||
		told[1].Type != event.TypeCertificateRejected || told[1].Details["directory"] != "/etc/tls" {
		t.Errorf("told %+v, %v", told, err)
	}
}
