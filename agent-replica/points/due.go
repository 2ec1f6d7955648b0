package points

import (
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/replication"
)

// Due says whether a point is to be sealed at now, interval after the newest one. Else next is when, as far as this record
// says; zero is not before the record changes. A clock that was set back makes one due.
func Due(record chain.Record, now time.Time, interval time.Duration) (due bool, next time.Time) {
	if record.RecoveryPoints == 0 || record.Sealable() != nil {
		return false, time.Time{}
	}
	next = record.PointTime.Add(interval)
	if record.PointTime.IsZero() || now.Before(record.PointTime) || !now.Before(next) {
		return true, time.Time{}
	}
	return false, next
}

// Excess are the points to be given up, oldest first, so that adding more may be sealed. While a transfer is open there
// are none: a resync's commit gives all of them up.
func Excess(record chain.Record, adding int) []replication.ID {
	if record.Transfer != nil || record.Releasing {
		return nil
	}
	points := record.Points()
	var excess []replication.ID
	for _, point := range points[:max(0, len(points)-max(0, record.RecoveryPoints-adding))] {
		excess = append(excess, point.ID)
	}
	return excess
}
