package resync

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Options say what an attempt transfers.
type Options struct {
	Transfer replication.ID
	Kind     replication.ResyncKind
	Disks    []Disk
	Proof    blockdiff.Algorithm
	// Lineage and Cut are what the primary knows of the replica; empty before the first commit.
	Lineage, Cut replication.ID
	// DiscardOther discards another transfer that is open on the replica.
	DiscardOther bool
	// RecoveryPoints are to be kept by the replica.
	RecoveryPoints int
	// Pace waits until n bytes more may be sent; nil for no limit.
	Pace func(ctx context.Context, n int) error
	// Budget is shared by all passes of the agent.
	Budget *Budget
	Limits Limits
}

// Disk is one disk of an attempt.
type Disk struct {
	ID     string
	Source tracking.Source
	// Cut is the one that the pass began with, in this attempt or an earlier one.
	Cut tracking.Cut
	// Restart begins the pass at 0: the source changed since an earlier attempt.
	Restart bool
	// MarksOnly lets no pass go over the disk: its log is exact.
	MarksOnly bool
	Progress  *Progress
}

// Outcome is what an attempt that went through has shown, disk by disk in the order of Options.
type Outcome struct{ Disks []DiskOutcome }

// DiskOutcome is one disk's proof.
type DiskOutcome struct {
	ID string
	// Root is the primary's, ReplicaRoot what the replica holds: equal except in a verify that found differences.
	// Both are zero for a disk that no pass went over.
	Root, ReplicaRoot blockdiff.Hash
	Duration          time.Duration
	// Session is the highest that the replica has seen on the disk.
	Session uint64
}

// Equal says whether every disk's replica holds what the primary has. A disk that no pass went over says nothing.
func (o Outcome) Equal() bool {
	for _, disk := range o.Disks {
		if disk.Root != disk.ReplicaRoot {
			return false
		}
	}
	return true
}

// Attempt opens the transfer and passes over all disks at once. It returns when every stream has ended and none of
// its goroutines runs. When it returns nil everything is proven and durable on the replica, and nothing is
// committed. Its failures name the disk; Retryable ones may be attempted again and go on at the durable cursors.
func Attempt(ctx context.Context, peer Peer, o Options) (Outcome, error) {
	begin := Begin{
		Transfer: o.Transfer, Kind: o.Kind, Lineage: o.Lineage, Cut: o.Cut, Restart: o.DiscardOther,
		RecoveryPoints: o.RecoveryPoints,
	}
	for _, disk := range o.Disks {
		begin.Disks = append(begin.Disks, BeginDisk{
			ID: disk.ID, SizeBytes: disk.Source.Size(), LogicalSectorSize: disk.Source.LogicalSectorSize(),
		})
		if disk.MarksOnly {
			begin.MarksOnly = append(begin.MarksOnly, disk.ID)
		}
	}
	cursors, err := peer.Begin(ctx, begin)
	if err != nil {
		return Outcome{}, err
	}
	if len(cursors) != len(o.Disks) {
		return Outcome{}, failure.New(failure.Internal, failure.ReasonProtocol,
			"the replica answered %d cursors for %d disks", len(cursors), len(o.Disks))
	}
	outcome := Outcome{Disks: make([]DiskOutcome, len(o.Disks))}
	group, ctx := errgroup.WithContext(ctx)
	for i, disk := range o.Disks {
		if disk.MarksOnly {
			outcome.Disks[i] = DiskOutcome{ID: disk.ID, Session: cursors[i].Session}
			continue
		}
		group.Go(func() error {
			result, err := runPass(ctx, peer, o, disk, cursors[i])
			outcome.Disks[i] = result
			return failure.Locate(err, "", disk.ID)
		})
	}
	if err := group.Wait(); err != nil {
		return Outcome{}, err
	}
	return outcome, nil
}
