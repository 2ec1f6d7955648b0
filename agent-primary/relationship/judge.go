package relationship

import (
	"fmt"

	"vmreplica/internal/replication"
)

// verdict is what a replica's record means for ours.
type verdict uint8

const (
	// inStep: the replica is at acked.
	inStep verdict = iota + 1
	// adopt: our commit took place and its answer was lost.
	adopt
	// commitAgain: our transfer is still open, so the commit did not take place.
	commitAgain
	// apart: neither; a resync is required.
	apart
)

// judge compares the replica's record with ours. For apart it names the disk, where there is one, and gives both
// records as evidence.
func judge(r Record, p Position) (v verdict, disk, evidence string) {
	active := r.Active()
	if active != nil && active.State == replication.ResyncCommitting {
		if p.Lineage == active.Lineage && p.Cut == active.Cut {
			return adopt, "", ""
		}
		if p.Transfer == active.Transfer && p.Lineage == r.Lineage && p.Cut == r.Cut {
			return commitAgain, "", ""
		}
		return apart, "", bothRecords(r, p)
	}
	if r.Delta != nil && p.Lineage == r.Lineage && p.Cut == r.Delta.Cut {
		return adopt, "", ""
	}
	if p.Lineage != r.Lineage || p.Cut != r.Cut {
		return apart, "", bothRecords(r, p)
	}
	for _, disk := range p.Disks {
		if disk.Doubt != "" {
			return apart, disk.ID, "the replica's files are not as it left them: " + disk.Doubt
		}
	}
	return inStep, "", ""
}

func bothRecords(r Record, p Position) string {
	ours := fmt.Sprintf("acknowledged lineage %s cut %s", short(r.Lineage), short(r.Cut))
	if active := r.Active(); active != nil && active.Lineage != "" && active.State == replication.ResyncCommitting {
		ours += fmt.Sprintf(", outstanding lineage %s cut %s of transfer %s",
			short(active.Lineage), short(active.Cut), short(active.Transfer))
	}
	if r.Delta != nil {
		ours += fmt.Sprintf(", outstanding cut %s of transfer %s", short(r.Delta.Cut), short(r.Delta.Transfer))
	}
	return fmt.Sprintf("the primary has %s; the replica has lineage %s cut %s, committed transfer %s, open transfer %s",
		ours, short(p.Lineage), short(p.Cut), short(p.CommittedTransfer), short(p.Transfer))
}

func short(id replication.ID) string {
	if id == "" {
		return "none"
	}
	return id.Short()
}
