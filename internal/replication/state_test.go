package replication_test

import (
	"slices"
	"testing"

	"vmreplica/internal/replication"
)

// follows is what may follow what, as design and operators know it.
var follows = map[replication.ResyncState][]replication.ResyncState{
	replication.ResyncScheduled: {replication.ResyncComparing, replication.ResyncCancelled, replication.ResyncFailed},
	replication.ResyncComparing: {replication.ResyncComparing, replication.ResyncCommitting, replication.ResyncDone,
		replication.ResyncCancelled, replication.ResyncFailed},
	replication.ResyncCommitting: {replication.ResyncComparing, replication.ResyncCommitted, replication.ResyncFailed},
	replication.ResyncCommitted:  {replication.ResyncMerging, replication.ResyncDone, replication.ResyncFailed},
	replication.ResyncMerging:    {replication.ResyncDone, replication.ResyncFailed},
}

func TestWhatMayFollowAResyncState(t *testing.T) {
	for from := replication.ResyncScheduled; from <= replication.ResyncFailed; from++ {
		for to := replication.ResyncScheduled; to <= replication.ResyncFailed; to++ {
			if got, want := from.CanBecome(to), slices.Contains(follows[from], to); got != want {
				t.Errorf("%v may become %v: %v, want %v", from, to, got, want)
			}
		}
		if got, want := from.Ended(), len(follows[from]) == 0; got != want {
			t.Errorf("%v has ended: %v, want %v", from, got, want)
		}
	}
}
