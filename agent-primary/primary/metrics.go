package primary

import (
	"github.com/prometheus/client_golang/prometheus"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/api"
	"vmreplica/internal/replication"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
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
	comparedBytes   = description("resync_compared_bytes_total", "Bytes compared in the present or last resync.", "vm", "disk")
	differing       = description("resync_differing_bytes_total", "Bytes found to differ in the present or last resync.", "vm", "disk")
	wireSent        = description("resync_wire_sent_bytes_total", "Bytes sent in the present or last resync.", "vm", "disk")
	wireReceived    = description("resync_wire_received_bytes_total", "Bytes received in the present or last resync.", "vm", "disk")
	cursorBytes     = description("resync_cursor_bytes", "Bytes before the durable cursor.", "vm", "disk")
	rateBytes       = description("resync_rate_bytes_per_second", "Present rate of comparing.", "vm", "disk")
	stateNumber     = description("replication_state", "The state by its number in the API: 3 is replicating.", "vm")
	healthNumber    = description("replication_health", "1 normal, 2 warning, 3 critical.", "vm")
	vmAttached      = description("attached", "1 while a machine has its disks attached through the agent.", "vm")
	vmTracked       = description("tracked", "1 where the VM's writes are tracked.", "vm")
	vmSynchronized  = description("last_synchronized_timestamp_seconds", "When the replica was last brought up to date.", "vm")
	cycleInterval   = description("cycle_interval_seconds", "How often the changes of a tracked machine are sent.", "vm")
	pendingBytes    = description("pending_bytes", "What the replica does not have, of a tracked machine.", "vm")
	hrlRatio        = description("hrl_accumulation_ratio", "pending_bytes of the VM's total disk size.", "vm")
	hrlLimit        = description("hrl_limit_ratio", "The accumulation from which on a resync is required; 0 is no limit.", "vm")
	cyclesCompleted = description("cycles_completed_total", "Cycles that were completed since the statistics were reset.", "vm")
	cyclesMissed    = description("cycles_missed_total", "Cycles that took longer than the interval.", "vm")
	cyclesFailed    = description("cycles_failed_total", "Cycles that did not complete.", "vm")
	expiry          = description("certificate_expiry_timestamp_seconds", "When the agent's certificate ends.")
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		comparedBytes, differing, wireSent, wireReceived, cursorBytes, rateBytes, stateNumber, healthNumber, expiry,
		vmAttached, vmTracked, vmSynchronized, cycleInterval, pendingBytes, hrlRatio, hrlLimit, cyclesCompleted, cyclesMissed, cyclesFailed,
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
		standing(view.Name, view.Spec, statusToProto(view), found)
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

// standing are how a VM stands: whether its writes are seen, what its replica lacks, and how its cycles have kept up.
func standing(vm string, spec replication.Spec, s *vmreplicav1.ReplicationStatus, found chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64) {
		found <- prometheus.MustNewConstMetric(d, kind, value, vm)
	}
	yes := map[bool]float64{true: 1}
	send(vmAttached, prometheus.GaugeValue, yes[s.GetAttached()])
	send(vmTracked, prometheus.GaugeValue, yes[s.GetTracked()])
	send(cycleInterval, prometheus.GaugeValue, spec.CycleInterval().Seconds())
	send(hrlLimit, prometheus.GaugeValue, float64(spec.HRLLimitPercent)/100)
	if at := s.GetLastSynchronizedTime(); at != nil {
		send(vmSynchronized, prometheus.GaugeValue, float64(at.AsTime().UnixMilli())/1000)
	}
	if s.GetTracked() && s.GetPendingBytes() >= 0 {
		send(pendingBytes, prometheus.GaugeValue, float64(s.GetPendingBytes()))
		send(hrlRatio, prometheus.GaugeValue, s.GetHrlAccumulationPercent()/100)
	}
	cycles := s.GetStatistics()
	send(cyclesCompleted, prometheus.CounterValue, float64(cycles.GetCyclesCompleted()))
	send(cyclesMissed, prometheus.CounterValue, float64(cycles.GetCyclesMissed()))
	send(cyclesFailed, prometheus.CounterValue, float64(cycles.GetCyclesFailed()))
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
