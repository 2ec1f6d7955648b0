package relationship

import (
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Delta is a cycle that has begun: what its commit would establish. It is durable before its first byte is sent, and
// stays until the replica's record tells what became of it.
type Delta struct {
	Transfer, Cut replication.ID
	Began         time.Time
}

// Cycle is a cycle that was completed.
type Cycle struct {
	Cut replication.ID
	// Began is when it was begun, CutTime the instant that the replica holds since, End when that was acknowledged.
	Began, CutTime, End  time.Time
	SentBytes, WireBytes int64
}

// Duration is how long the cycle took.
func (c Cycle) Duration() time.Duration { return c.End.Sub(c.Began) }

// beginDelta makes a cut outstanding.
func (r Record) beginDelta(now time.Time, transfer, cut replication.ID) (Record, []event.Event, error) {
	if r.State() != replication.Replicating {
		return r, nil, errSuperseded
	}
	r = r.clone()
	r.Delta = &Delta{Transfer: transfer, Cut: cut, Began: now}
	return r, nil, nil
}

// cycled takes the outstanding cut for acked. Roots are the disks' in the record's order.
func (r Record) cycled(done Cycle, missed int, proof blockdiff.Algorithm, roots []blockdiff.Hash) (Record, []event.Event, error) {
	if r.Delta == nil || r.Delta.Cut != done.Cut || len(roots) != len(r.Disks) {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "cut %s is not outstanding", done.Cut.Short())
	}
	prover, err := blockdiff.NewProver(proof)
	if err != nil {
		return r, nil, failure.New(failure.Internal, failure.ReasonInternal, "%w", err)
	}
	r = r.clone()
	names := make([]string, len(r.Disks))
	for i := range r.Disks {
		names[i], r.Disks[i].Root = r.Disks[i].ID, roots[i].String()
	}
	r.Delta, r.Cut, r.LastCycle = nil, done.Cut, &done
	r.ProvenTime, r.ProvenRoot = done.CutTime, prover.Combine(names, roots).String()
	r.LastSynchronized, r.LastDuration = done.End, done.Duration()
	r.Statistics.count(done, missed)
	return r, nil, nil
}

func (s *Statistics) count(done Cycle, missed int) {
	s.CyclesCompleted++
	s.CyclesMissed += uint64(missed)
	s.SentBytes += done.WireBytes
	s.ReplicatedBytes += done.SentBytes
	s.MaxCycleBytes = max(s.MaxCycleBytes, done.SentBytes)
	s.CycleDuration += done.Duration()
	s.MaxCycleDuration = max(s.MaxCycleDuration, done.Duration())
}

// settled ends an outstanding delta that the replica has not committed.
func (r Record) settled() (Record, []event.Event, error) {
	r = r.clone()
	r.Delta = nil
	return r, nil, nil
}

// cycleFailed counts a cycle that time alone does not cure. Only what Reconcile answers sets a cause.
func (r Record) cycleFailed(found *failure.Error) (Record, []event.Event, error) {
	r = r.clone()
	r.Statistics.CyclesFailed++
	return r, []event.Event{event.CycleFailed(r.Name, found.Disk, found.Reason, fullStop(sentence(found)))}, nil
}

// supersede notes that the replica was failed over to.
func (r Record) supersede(now time.Time, reason string) (Record, []event.Event, error) {
	if r.Superseded != nil {
		return r, nil, nil
	}
	r = r.clone()
	r.Superseded = &Superseded{Time: now, Reason: reason}
	return r, []event.Event{event.Superseded(r.Name, reason)}, nil
}

// parseRoot reads a root that was kept as text.
func parseRoot(text string) (root blockdiff.Hash, err error) {
	return root, root.UnmarshalText([]byte(text))
}
