package relationship

import (
	"time"

	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

// autoRetry is how long after a resync that failed the policy waits before it starts another.
const autoRetry = 5 * time.Minute

// wrongDisk are causes after which this primary may have the older or another disk than the replica: an operator decides.
var wrongDisk = map[replication.Cause]bool{replication.CauseReverted: true, replication.CauseResyncCancelled: true}

// autoResyncAt is when the policy starts a resync; zero when it does not.
func (r Record) autoResyncAt(now time.Time) time.Time {
	policy := r.Spec.AutoResync
	if policy.Mode == replication.AutoResyncOff || r.State() != replication.WaitingForStartResynchronize || r.Active() != nil ||
		wrongDisk[r.Cause] || r.NeedsForce {
		return time.Time{}
	}
	if last := r.Resync; last != nil && last.State == replication.ResyncFailed && now.Before(last.EndTime.Add(autoRetry)) {
		now = last.EndTime.Add(autoRetry)
	}
	opens, err := schedule.NextOpen(policy, now)
	if err != nil {
		return time.Time{}
	}
	return opens
}

// restsUntil is when a resync that the policy started goes on; zero while it need not rest.
func (s *Resync) restsUntil(policy replication.AutoResync, now time.Time) time.Time {
	if !s.Auto || !policy.PauseAtEnd || policy.Mode != replication.AutoResyncWindow || s.State == replication.ResyncCommitting {
		return time.Time{}
	}
	opens, err := schedule.NextOpen(policy, now)
	if err != nil {
		return time.Time{}
	}
	return opens
}

// startByPolicy starts a required resync when the policy says so.
func (o *owner) startByPolicy(now time.Time) {
	at := o.record().autoResyncAt(now)
	if at.IsZero() || at.After(now) || o.frozen > 0 {
		return
	}
	c := change{transition: func(r Record) (Record, []event.Event, error) {
		r, events, err := r.start(now.UTC().Round(0), Start{Kind: replication.KindResync})
		if err == nil {
			r.Resync.Auto, r.Resync.Cause = true, "started by itself: "+r.Resync.Cause
		}
		return r, events, err
	}}
	if a := o.handle(c); a.err != nil {
		o.log.Error("the required resync was not started", "error", a.err)
	}
}
