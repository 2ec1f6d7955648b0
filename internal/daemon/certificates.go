package daemon

import (
	"log/slog"
	"time"

	"vmreplica/internal/event"
)

// Certificates are an agent's own, which say what became of new files in their directory.
type Certificates interface {
	Observe(used func(identity string, notAfter time.Time), rejected func(directory string, err error))
}

// RecordCertificates records each reload of the certificates, and each refusal of new ones, as an event.
func RecordCertificates(certificates Certificates, events *event.Log, log *slog.Logger) {
	record := func(happened event.Event) {
		if err := events.Record(happened); err != nil {
			log.Error("an event could not be recorded", "type", happened.Type, "error", err)
		}
	}
	certificates.Observe(
		func(identity string, notAfter time.Time) { record(event.CertificateReloaded(identity, notAfter)) },
		func(directory string, err error) { record(event.CertificateRejected(directory, err.Error())) },
	)
}
