package relationship

import (
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// maxRestarts is how many passes in a row may begin again because an image changed.
const maxRestarts = 3

// advance moves the resync to state, if the table allows that.
func (r Record) advance(to replication.ResyncState) (Record, error) {
	active := r.Active()
	if active == nil || !active.State.CanBecome(to) {
		from := "no resync"
		if r.Resync != nil {
			from = r.Resync.State.String()
		}
		return r, failure.New(failure.Internal, failure.ReasonInternal, "%s cannot become %s", from, to)
	}
	r = r.clone()
	r.Resync.State = to
	return r, nil
}

// begin makes the cut that the resync stands for: from here the old baseline is void.
func (r Record) begin(now time.Time, proof blockdiff.Algorithm, cuts []tracking.Cut) (Record, []event.Event, error) {
	r, err := r.advance(replication.ResyncComparing)
	if err != nil {
		return r, nil, err
	}
	r.Resync.StartTime, r.Resync.CutTime, r.Delta = now, now, nil
	if r.Resync.Proof == 0 {
		r.Resync.Proof = proof
	}
	var events []event.Event
	for i := range r.Resync.Disks {
		disk := &r.Resync.Disks[i]
		// What an earlier resync left counts only if the image is still the one that it read.
		disk.Restart = r.Resync.Transfer != r.Resync.ID && (cuts[i].Since != "" || disk.Cut.Stamp != cuts[i].Stamp)
		disk.Cut = cuts[i]
		disk.MarksOnly = r.Resync.Kind == replication.KindResync && cuts[i].Since != "" && cuts[i].Since == r.Lineage
		events = append(events, resyncStarted(r, i))
	}
	return r, events, nil
}

// again takes new cuts for the disks whose image has changed; their passes begin again and what was received
// stays. Too often in a row suspends the relationship.
func (r Record) again(now time.Time, changed map[int]tracking.Cut, disk, evidence string) (Record, []event.Event, error) {
	r, err := r.advance(replication.ResyncComparing)
	if err != nil {
		return r, nil, err
	}
	r.Resync.Restarts++
	r.Resync.InRow++
	r.Resync.CutTime = now // the other images were found unchanged now
	for i, cut := range changed {
		r.Resync.Disks[i].Cut, r.Resync.Disks[i].Restart = cut, true
	}
	events := []event.Event{passRestarted(r, disk, evidence)}
	if r.Resync.InRow < maxRestarts {
		return r, events, nil
	}
	r.Suspension = &Suspension{
		Reason: "the image keeps changing while it is compared: " + evidence,
		Code:   failure.ReasonImageChanged, Time: now,
	}
	return r, append(events, suspended(r)...), nil
}

// restarted notes that a disk's stream has begun at 0 as asked.
func (r Record) restarted(index int) (Record, []event.Event, error) {
	r = r.clone()
	r.Resync.Disks[index].Restart = false
	return r, nil, nil
}

// interrupted saves how far the resync came when an attempt ended, and why.
func (r Record) interrupted(err error, wait time.Duration, figures []resync.Figures) (Record, []event.Event, error) {
	r = r.clone()
	found := failure.Find(err)
	first := r.Resync.Reason != found.Reason
	r.Resync.Reason = found.Reason
	r.saveFigures(figures)
	if found.Class == failure.Unreachable {
		r.Resync.Reconnects++
		r.Statistics.NetworkFailures++
	}
	if !first {
		return r, nil, nil
	}
	events := []event.Event{resyncInterrupted(r, found, wait)}
	if r.Resync.State == replication.ResyncCommitting && found.Class == failure.Unreachable {
		events = append(events, naming(event.CommitInDoubt(r.Name, found.Message), r))
	}
	return r, events, nil
}

// recovered notes that the resync goes on after failures.
func (r Record) recovered(attempts int) (Record, []event.Event, error) {
	r = r.clone()
	r.Resync.Reason = ""
	return r, []event.Event{resyncRecovered(r, attempts)}, nil
}

// saveFigures keeps the progress; none is no news.
func (r *Record) saveFigures(figures []resync.Figures) {
	for i := range figures {
		r.Resync.Disks[i].Figures = figures[i]
	}
}

// has says whether these are the figures that were saved last.
func (s *Resync) has(figures []resync.Figures) bool {
	for i := range figures {
		if s.Disks[i].Figures != figures[i] {
			return false
		}
	}
	return true
}

// outcome keeps what an attempt has shown and answers the root over all disks.
func (r *Record) outcome(now time.Time, outcome resync.Outcome, figures []resync.Figures) (string, error) {
	prover, err := blockdiff.NewProver(r.Resync.Proof)
	if err != nil {
		return "", failure.New(failure.Internal, failure.ReasonInternal, "%w", err)
	}
	r.saveFigures(figures)
	var names []string
	var roots []blockdiff.Hash
	for i, disk := range outcome.Disks {
		kept := &r.Resync.Disks[i]
		kept.Root, kept.ReplicaRoot, kept.Duration = disk.Root, disk.ReplicaRoot, now.Sub(r.Resync.StartTime)
		if kept.MarksOnly {
			if kept.Root, err = parseRoot(r.Disks[i].Root); err != nil {
				return "", failure.New(failure.Internal, failure.ReasonInternal, "the acked root: %w", err).On(r.Name, disk.ID)
			}
			kept.ReplicaRoot = kept.Root
		}
		names, roots = append(names, disk.ID), append(roots, kept.committed(prover))
	}
	return prover.Combine(names, roots).String(), nil
}
