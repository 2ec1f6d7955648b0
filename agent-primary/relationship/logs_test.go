package relationship

import (
	"slices"
	"strings"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// TestLossesOfSeveralDisks has disks of a VM of three lose their logs, whose files may not know of it later: a disk is
// resynchronized by what its log has marked only where the record says that no other than the named one was lost.
func TestLossesOfSeveralDisks(t *testing.T) {
	loss := func(why string) hrl.Loss { return hrl.Loss{Cause: hrl.WriteFailed, Evidence: why} }
	lose := func(r Record, index int, why string) Record {
		r, _, err := r.trackingLost(noon, index, loss(why))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := reach(t, ready(), copied...)
	for _, id := range []string{"data", "log"} {
		more := r.Disks[0]
		more.ID = id
		r.Disks = append(r.Disks, more)
	}
	marksOnly := func(r Record) (only []bool) {
		r = reach(t, r, "start resync")
		for i := range r.Disks {
			only = append(only, r.marksOnly(i, hrl.Loss{}))
		}
		return only
	}
	r = lose(lose(r, 1, "the first"), 1, "once more")
	if only := marksOnly(r); !only[0] || only[1] || !only[2] || r.CauseDisk != "data" || r.Evidence != "the first" {
		t.Errorf("one disk lost its log: %v, disk %q, %s", only, r.CauseDisk, r.Evidence)
	}
	r = lose(lose(r, 0, "the second"), 2, "the third")
	if only := marksOnly(r); only[0] || only[1] || only[2] || r.Cause != replication.CauseHRLWriteFailed ||
		!strings.Contains(r.Evidence, "the first") || !strings.Contains(r.Evidence, "disk root: the second") {
		t.Errorf("two disks lost their logs: %v, %s", only, r.Evidence)
	}
}

// TestALossInAResyncVoidsTheCut: a log that is found again as it was before follows a cut that is the resync's no more.
func TestALossInAResyncVoidsTheCut(t *testing.T) {
	for name, path := range map[string][]string{
		"a first copy": {"start initial", "begin"},
		"a resync":     append(slices.Clone(copied), "start resync", "begin"),
	} {
		t.Run(name, func(t *testing.T) {
			r := reach(t, ready(), path...)
			cut := replication.NewID()
			r.Disks[0].Log = &DiskLog{Identity: replication.NewID(), Opened: 1}
			r.Resync.Disks[0].Cut = tracking.Cut{ID: cut, Since: cut}
			if !slices.Contains(r.knownLog(0).Baselines, cut) {
				t.Fatal("the cut is not one that the log may follow")
			}
			after, _, err := r.trackingLost(noon, 0, hrl.Loss{Cause: hrl.WriteFailed, Evidence: "no space"})
			if err != nil {
				t.Fatal(err)
			}
			if after.Resync.Disks[0].Cut.Since != "" || slices.Contains(after.knownLog(0).Baselines, cut) {
				t.Errorf("the cut is %+v, the log may follow %v", after.Resync.Disks[0].Cut, after.knownLog(0).Baselines)
			}
			if r.Resync.Disks[0].Cut.Since != cut {
				t.Error("the record of before has changed")
			}
		})
	}
}
