package replica

import (
	"github.com/prometheus/client_golang/prometheus"

	"vmreplica/agent-replica/storage"
	"vmreplica/blockdiff"
	"vmreplica/internal/replication"
)

// metrics are computed from the same observations as the status, when they are scraped.
type metrics struct {
	observer *observer
	storage  *storage.Storage
}

var (
	free = prometheus.NewDesc("vmreplica_replica_storage_free_bytes", "Bytes that may still be written.", nil, nil)

	stateMetric = prometheus.NewDesc("vmreplica_replica_state", "1 for the state that the VM is in.",
		[]string{"vm", "state"}, nil)
	health     = prometheus.NewDesc("vmreplica_replica_health", "1 normal, 2 warning, 3 critical.", []string{"vm"}, nil)
	layers     = prometheus.NewDesc("vmreplica_replica_layers", "Layers on the disk's base.", []string{"vm", "disk"}, nil)
	pointsKept = prometheus.NewDesc("vmreplica_replica_recovery_points", "Recovery points that are kept beside the newest content.",
		[]string{"vm"}, nil)
	pointReaders = prometheus.NewDesc("vmreplica_replica_readers", "Readers of recovery points and of the newest content.",
		[]string{"vm"}, nil)
	cursor = prometheus.NewDesc("vmreplica_replica_cursor_bytes",
		"Bytes before the durable cursor of the open transfer.", []string{"vm", "disk"}, nil)
	merged = prometheus.NewDesc("vmreplica_replica_merged_bytes", "Bytes of the layer that are merged.",
		[]string{"vm", "disk"}, nil)
	mergeTotal = prometheus.NewDesc("vmreplica_replica_merge_bytes", "Bytes of the layer that is being merged.",
		[]string{"vm", "disk"}, nil)
	synchronized = prometheus.NewDesc("vmreplica_replica_last_commit_timestamp_seconds",
		"When a transfer of the VM last committed.", []string{"vm"}, nil)
)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		free, stateMetric, health, layers, pointsKept, pointReaders, cursor, merged, mergeTotal, synchronized,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if bytes, err := m.storage.Free(); err == nil {
		gauge(free, float64(bytes))
	}
	observations, err := m.observer.all()
	if err != nil {
		out <- prometheus.NewInvalidMetric(stateMetric, err)
		return
	}
	for _, o := range observations {
		vm := o.record.VM
		gauge(stateMetric, 1, vm, o.state().String())
		gauge(health, float64(replication.Worst(o.healthReasons())), vm)
		gauge(pointsKept, float64(len(o.record.Points())), vm)
		gauge(pointReaders, float64(len(o.readers)), vm)
		if !o.record.CommitTime.IsZero() {
			gauge(synchronized, float64(o.record.CommitTime.Unix()), vm)
		}
		for _, d := range o.record.Disks {
			gauge(layers, float64(len(d.Layers)), vm, d.ID)
			if t := o.record.Cursor(d.ID); t != nil {
				gauge(cursor, float64(min(t.Segment*blockdiff.SegmentSize, d.SizeBytes)), vm, d.ID)
			}
			if o.merge.Disk == d.ID {
				gauge(merged, float64(o.merge.Merged), vm, d.ID)
				gauge(mergeTotal, float64(o.merge.Total), vm, d.ID)
			}
		}
	}
}
