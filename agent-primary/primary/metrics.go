package primary

import (
	"github.com/prometheus/client_golang/prometheus"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/api"
	"vmreplica/transport"
)

// metrics are read from the relationships at each scrape, so that they say what the API says. The labels are
// bounded by what operators have enabled.
type metrics struct {
	manager     *relationship.Manager
	credentials *transport.Credentials
}

func description(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("vmreplica_"+name, help, labels, nil)
}

var (
	comparedBytes = description("resync_compared_bytes_total", "Bytes compared in the present or last resync.", "vm", "disk")
	differing     = description("resync_differing_bytes_total", "Bytes found to differ in the present or last resync.", "vm", "disk")
	wireSent      = description("resync_wire_sent_bytes_total", "Bytes sent in the present or last resync.", "vm", "disk")
	wireReceived  = description("resync_wire_received_bytes_total", "Bytes received in the present or last resync.", "vm", "disk")
	cursorBytes   = description("resync_cursor_bytes", "Bytes before the durable cursor.", "vm", "disk")
	rateBytes     = description("resync_rate_bytes_per_second", "Present rate of comparing.", "vm", "disk")
	stateNumber   = description("replication_state", "The state by its number in the API: 3 is replicating.", "vm")
	healthNumber  = description("replication_health", "1 normal, 2 warning, 3 critical.", "vm")
	expiry        = description("certificate_expiry_timestamp_seconds", "When the agent's certificate ends.")
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		comparedBytes, differing, wireSent, wireReceived, cursorBytes, rateBytes, stateNumber, healthNumber, expiry,
	} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(found chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		found <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(expiry, float64(m.credentials.NotAfter().Unix()))
	for _, view := range m.manager.List() {
		gauge(stateNumber, float64(api.StateToProto(view.State)), view.Name)
		gauge(healthNumber, float64(api.HealthToProto(view.Health())), view.Name)
		for i, disk := range view.Disks {
			figures, rate := diskFigures(view, i)
			counter := func(d *prometheus.Desc, value int64) {
				found <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), view.Name, disk.ID)
			}
			counter(comparedBytes, figures.ComparedBytes)
			counter(differing, figures.BytesDiffering)
			counter(wireSent, figures.WireBytesSent)
			counter(wireReceived, figures.WireBytesReceived)
			gauge(cursorBytes, float64(figures.DurableBytes), view.Name, disk.ID)
			gauge(rateBytes, float64(rate), view.Name, disk.ID)
		}
	}
}

// diskFigures are a disk's in the present or last resync.
func diskFigures(view relationship.View, index int) (figures resync.Figures, rate int64) {
	if view.Record.Active() != nil && index < len(view.Progress) {
		return view.Progress[index].Figures, view.Progress[index].BytesPerSecond
	}
	if last := view.Record.Resync; last != nil && index < len(last.Disks) {
		return last.Disks[index].Figures, 0
	}
	return resync.Figures{}, 0
}
