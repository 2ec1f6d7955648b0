package relationship

import (
	"context"
	"log/slog"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// sources are the open disks of a VM, in the record's order.
type sources []tracking.Source

// open opens and locks every disk, or none.
func (w *worker) open(record Record) (sources, error) {
	var opened sources
	for _, spec := range record.Spec.Disks {
		source, err := tracking.OpenCold(w.owner.config.Images, spec)
		if err != nil {
			opened.close(w.owner.log)
			return nil, failure.Locate(err, record.Name, spec.ID)
		}
		opened = append(opened, source)
	}
	return opened, nil
}

func (s sources) close(log *slog.Logger) {
	for _, source := range s {
		if err := source.Close(); err != nil {
			log.Warn("an image was not closed", "error", err)
		}
	}
}

// cut is one instant over all disks.
func (s sources) cut(ctx context.Context) ([]tracking.Cut, error) {
	id := replication.NewID()
	var cuts []tracking.Cut
	for _, source := range s {
		cut, err := source.Cut(ctx)
		if err != nil {
			return nil, err
		}
		cut.ID = id
		cuts = append(cuts, cut)
	}
	return cuts, nil
}

// changed are the disks whose image is no longer the one of the resync's cut, with new cuts, and what was noticed
// of one of them.
func (s sources) changed(ctx context.Context, record Record) (changed map[int]tracking.Cut, evidence, err error) {
	changed = map[int]tracking.Cut{}
	for i, disk := range record.Active().Disks {
		noticed := s[i].Continuous(disk.Cut)
		if noticed == nil {
			continue
		}
		if failure.Find(noticed).Reason != failure.ReasonImageChanged {
			return nil, nil, failure.Locate(noticed, record.Name, disk.ID)
		}
		cut, err := s[i].Cut(ctx)
		if err != nil {
			return nil, nil, failure.Locate(err, record.Name, disk.ID)
		}
		changed[i], evidence = cut, failure.Locate(noticed, record.Name, disk.ID)
	}
	return changed, evidence, nil
}
