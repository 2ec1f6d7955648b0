package relationship

import (
	"context"
	"time"

	"vmreplica/agent-primary/qmp"
	"vmreplica/internal/failure"
)

// How often a machine's monitor is asked at most, and how long it may take to answer.
const (
	monitorInterval = 30 * time.Second
	monitorPatience = 5 * time.Second
)

// askMonitor asks an attached machine's monitor, where it is known, whether external snapshots stand above its disks.
func (w *worker) askMonitor(ctx context.Context) {
	record := w.owner.record()
	if record.Spec.QMPSocket == "" || w.owner.config.Monitor == nil || !w.owner.machine.attached() ||
		time.Since(w.owner.live.show().monitorAsked) < monitorInterval {
		return
	}
	var exports []string
	for _, d := range record.Disks {
		exports = append(exports, ExportName(record.Name, d.ID))
	}
	ctx, cancel := context.WithTimeout(ctx, monitorPatience)
	defer cancel()
	found, err := w.owner.config.Monitor(ctx, record.Spec.QMPSocket, exports)
	w.owner.live.change(func(l *Live) {
		l.monitorAsked, l.MonitorTrouble, l.Snapshots = time.Now(), nil, nil
		if err != nil {
			l.MonitorTrouble = failure.Find(err)
		}
		for i, f := range found {
			if f.Use == qmp.Snapshotted {
				if l.Snapshots == nil {
					l.Snapshots = map[string]string{}
				}
				l.Snapshots[record.Disks[i].ID] = f.Above + " " + f.File
			}
		}
	})
}
