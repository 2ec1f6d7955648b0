package relationship

import (
	"fmt"
	"time"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// commit makes what the commit would establish outstanding: cut, which is what was shipped last where anything was. From
// here the replica decides.
func (r Record) commit(now time.Time, outcome resync.Outcome, figures []resync.Figures, cut replication.ID, shipped *ship.Outcome,
) (Record, []event.Event, error) {
	if !outcome.Equal() || len(outcome.Disks) != len(r.Disks) {
		return r, nil, failure.New(failure.Corrupt, failure.ReasonProofFailed, "the replica does not hold what was compared")
	}
	r, err := r.advance(replication.ResyncCommitting)
	if err != nil {
		return r, nil, err
	}
	if shipped != nil {
		r.caughtUp(cut, *shipped)
	}
	if r.Resync.Root, err = r.outcome(now, outcome, figures); err != nil {
		return r, nil, err
	}
	r.Resync.Reason = ""
	r.Resync.Lineage, r.Resync.Cut = replication.NewID(), cut
	return r, nil, nil
}

// caughtUp notes what was sent while catching up. The resync stands for its cut then.
func (r *Record) caughtUp(cut replication.ID, shipped ship.Outcome) {
	r.Resync.CutTime, r.Resync.Rounds = shipped.CutTime, uint32(shipped.Rounds)
	for i, disk := range shipped.Disks {
		kept := &r.Resync.Disks[i]
		kept.Shipment, kept.ShipmentRoot, kept.CaughtUpBytes = cut, disk.Root, disk.Bytes
	}
}

// committed takes what the replica has committed for acked. This alone leads to Replicating.
func (r Record) committed(now time.Time) (Record, []event.Event, error) {
	r, err := r.advance(replication.ResyncCommitted)
	if err != nil {
		return r, nil, err
	}
	s := r.Resync
	s.CommitTime, s.Reason = now, ""
	r.Lineage, r.Cut = s.Lineage, s.Cut
	r.ProvenTime, r.ProvenRoot = s.CutTime, s.Root
	r.LastSynchronized, r.LastDuration = now, now.Sub(s.StartTime)
	r.clearCause()
	r.Statistics.Completed++
	prover, err := blockdiff.NewProver(s.Proof)
	if err != nil {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "%w", err)
	}
	for i, disk := range s.Disks {
		r.Disks[i].Stamp, r.Disks[i].Root = disk.Cut.Stamp, disk.committed(prover).String()
		r.countWire(disk)
	}
	return r, []event.Event{resyncCommitted(r)}, nil
}

func (r *Record) countWire(disk ResyncDisk) {
	r.Statistics.SentBytes += disk.Figures.WireBytesSent
	r.Statistics.ReceivedBytes += disk.Figures.WireBytesReceived
}

// merging notes that the replica merges what was committed.
func (r Record) merging() (Record, []event.Event, error) {
	r, err := r.advance(replication.ResyncMerging)
	return r, nil, err
}

// hindered notes what is in the way of the replica's merge, and nil that nothing is any more. Each is told of once.
func (r Record) hindered(problem *MergeProblem) (Record, []event.Event, error) {
	if active := r.Active(); active == nil || !active.awaitsMerge() {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "no merge is there to be hindered")
	}
	r = r.clone()
	r.Resync.Reason = reasonOf(problem)
	if problem == nil {
		return r, []event.Event{naming(event.MergeRecovered(r.Name), r)}, nil
	}
	found := problem.Found
	told := event.MergeHindered(r.Name, found.Disk, found.Reason, fullStop(sentence(found)), problem.Final)
	return r, []event.Event{naming(told, r)}, nil
}

// reasonOf is a merge problem's code; empty for none.
func reasonOf(problem *MergeProblem) string {
	if problem == nil {
		return ""
	}
	return problem.Found.Reason
}

// done ends a resync whose merge is done.
func (r Record) done(now time.Time) (Record, []event.Event, error) {
	r, err := r.advance(replication.ResyncDone)
	if err != nil {
		return r, nil, err
	}
	blocks, bytes := r.Resync.differing()
	return r.ended(now, "", fmt.Sprintf("proven equal; %s with %s of content differed",
		event.Count(blocks, "block"), event.Size(bytes)))
}

// verified ends a verify: equal renews the proof, differing is a cause.
func (r Record) verified(now time.Time, outcome resync.Outcome, figures []resync.Figures) (Record, []event.Event, error) {
	to := replication.ResyncDone
	if !outcome.Equal() {
		to = replication.ResyncFailed
	}
	r, err := r.advance(to)
	if err != nil {
		return r, nil, err
	}
	root, err := r.outcome(now, outcome, figures)
	if err != nil {
		return r, nil, err
	}
	r.Abandoned = append(r.Abandoned, r.Resync.Transfer)
	for _, disk := range r.Resync.Disks {
		r.countWire(disk)
	}
	if outcome.Equal() {
		r.Resync.Root, r.ProvenRoot, r.ProvenTime = root, root, r.Resync.CutTime
		r.Statistics.Completed++
		return r.ended(now, "", "equal")
	}
	blocks, bytes := r.Resync.differing()
	result := "the replica differs: " + event.Differing(blocks)
	if bytes > 0 {
		result += ", " + event.Size(bytes)
	}
	r.Statistics.Failed++
	r.setCause(now, replication.CauseProofFailed, r.Resync.firstDiffering(), "a verify found that "+result)
	r, events, err := r.ended(now, failure.ReasonProofFailed, result)
	return r, append(events, resyncRequired(r)), err
}

// differing sums what was found to differ.
func (s *Resync) differing() (blocks, bytes int64) {
	for _, disk := range s.Disks {
		blocks += disk.Figures.BlocksDiffering
		bytes += disk.Figures.BytesDiffering
	}
	return blocks, bytes
}

func (s *Resync) firstDiffering() string {
	for _, disk := range s.Disks {
		if disk.Root != disk.ReplicaRoot {
			return disk.ID
		}
	}
	return ""
}

// ended completes a resync that has begun and has just reached its last state.
func (r Record) ended(now time.Time, reason, result string) (Record, []event.Event, error) {
	r.Resync.EndTime, r.Resync.Reason, r.Resync.Result = now, reason, result
	events := make([]event.Event, 0, len(r.Resync.Disks))
	for i := range r.Resync.Disks {
		events = append(events, resyncFinished(r, i))
	}
	return r, events, nil
}
