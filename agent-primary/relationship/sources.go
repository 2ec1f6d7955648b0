package relationship

import (
	"context"
	"log/slog"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// sources are the open disks of a VM, in the record's order: images that nothing writes to, or, where the VM is tracked,
// the disks as the machine writes them.
type sources struct {
	disks []tracking.Source
	// tracked are the disks of a tracked VM; nil for images. release gives them back.
	tracked *opened
	release func()
}

// open opens and locks every disk, or none.
func (w *worker) open(ctx context.Context, record Record) (sources, error) {
	if record.Tracked() || w.owner.machine.isOpen() {
		return w.openTracked(ctx)
	}
	var opened sources
	for _, spec := range record.Spec.Disks {
		source, err := tracking.OpenCold(w.owner.config.Images, spec)
		if err != nil {
			opened.close(w.owner.log)
			return sources{}, failure.Locate(err, record.Name, spec.ID)
		}
		opened.disks = append(opened.disks, source)
	}
	return opened, nil
}

func (w *worker) openTracked(ctx context.Context) (sources, error) {
	open, release, err := w.owner.machine.acquire(ctx)
	if err != nil {
		return sources{}, err
	}
	s := sources{tracked: open, release: release}
	for i := range open.disks {
		s.disks = append(s.disks, open.group.Source(i))
	}
	return s, nil
}

func (s sources) close(log *slog.Logger) {
	for _, source := range s.disks {
		if err := source.Close(); err != nil {
			log.Warn("an image was not closed", "error", err)
		}
	}
	if s.release != nil {
		s.release()
	}
}

// cut is one instant over all disks. Of tracked disks it is only named: begin makes it, when the record has it.
func (s sources) cut(ctx context.Context, record Record) ([]tracking.Cut, error) {
	id := replication.NewID()
	var cuts []tracking.Cut
	for i, source := range s.disks {
		switch {
		case s.tracked == nil:
			cut, err := source.Cut(ctx)
			if err != nil {
				return nil, err
			}
			cut.ID = id
			cuts = append(cuts, cut)
		case record.Active().Kind == replication.KindVerify || record.marksOnly(i, s.tracked.disks[i].Loss()):
			cuts = append(cuts, tracking.Cut{ID: id, Since: record.Lineage})
		default:
			cuts = append(cuts, tracking.Cut{ID: id, Since: id})
		}
	}
	return cuts, nil
}

// begin makes the named cuts of tracked disks that are to be compared: what was marked before is forgotten.
func (s sources) begin(ctx context.Context, cuts map[int]tracking.Cut) error {
	if s.tracked == nil {
		return nil
	}
	disks := map[replication.ID][]*tracking.Disk{}
	for i, cut := range cuts {
		if cut.Since == cut.ID {
			disks[cut.Since] = append(disks[cut.Since], s.tracked.disks[i])
		}
	}
	for baseline, begun := range disks {
		if _, err := s.tracked.group.Begin(ctx, baseline, begun...); err != nil {
			return err
		}
	}
	return nil
}

// changed are the disks that are no longer continuous with the resync's cut, with new cuts, and what was noticed of one
// of them. Those of tracked disks are only named.
func (s sources) changed(ctx context.Context, record Record) (changed map[int]tracking.Cut, evidence, err error) {
	changed = map[int]tracking.Cut{}
	baseline := replication.NewID()
	for i, disk := range record.Active().Disks {
		noticed := s.disks[i].Continuous(disk.Cut)
		if noticed == nil {
			continue
		}
		if failure.Find(noticed).Reason != failure.ReasonImageChanged {
			return nil, nil, failure.Locate(noticed, record.Name, disk.ID)
		}
		cut := tracking.Cut{ID: baseline, Since: baseline}
		if s.tracked == nil {
			if cut, err = s.disks[i].Cut(ctx); err != nil {
				return nil, nil, failure.Locate(err, record.Name, disk.ID)
			}
		}
		changed[i], evidence = cut, failure.Locate(noticed, record.Name, disk.ID)
	}
	return changed, evidence, nil
}
