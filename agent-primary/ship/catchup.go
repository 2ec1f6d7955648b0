package ship

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Options say what is shipped.
type Options struct {
	Transfer replication.ID
	// Cut is the cut's id, and names its shipments. The caller has recorded it.
	Cut   replication.ID
	Proof blockdiff.Algorithm
	Group *tracking.Group
	// Disks are the group's, in its order.
	Disks    []Disk
	Limits   Limits
	Progress *Progress
	// Churn is told when rounds do not shrink what is dirty; it may be nil.
	Churn func(Churn)
}

// Disk is one disk; Session is the highest that the replica has seen on it.
type Disk struct {
	ID      string
	Session uint64
}

// Churn is how fast the machine writes and how fast that is sent.
type Churn struct{ DirtyBytesPerSecond, ShippedBytesPerSecond int64 }

// Outcome is a cut that is durable on the replica and not committed.
type Outcome struct {
	// Epoch is open and wholly sent: the caller commits, and ends it by Ack or Abort.
	Epoch   *tracking.Epoch
	CutTime time.Time
	// Rounds were sent, the cut included.
	Rounds int
	Disks  []DiskOutcome
}

// DiskOutcome is one disk's shipment of the cut: its root, and the content of all its shipments in bytes.
type DiskOutcome struct {
	ID    string
	Root  blockdiff.Hash
	Bytes int64
}

// stuckRounds is how many rounds may not shrink what is dirty before the cut is tried anyway.
const stuckRounds = 3

// CatchUp ships rounds until what is dirty fits into copy-before-write, and then a cut over all disks. On an error
// everything that was sent is marked again. Failures: those of the Peer, TRACKING_LOST, PROOF_FAILED.
func CatchUp(ctx context.Context, peer Peer, o Options) (Outcome, error) {
	c := &catchUp{Options: o, peer: peer, sessions: make([]uint64, len(o.Disks)), outcome: make([]DiskOutcome, len(o.Disks))}
	for i, disk := range o.Disks {
		c.sessions[i], c.outcome[i].ID = disk.Session, disk.ID
	}
	for stuck := 0; ; {
		figures := o.Group.Figures()
		dirty := figures.Live + figures.Pending
		o.Progress.rounds.Add(1)
		o.Progress.dirty.Store(dirty)
		frozen := dirty <= figures.Budget || stuck >= stuckRounds
		began, before := time.Now(), o.Progress.sent.Load()
		epoch, cutTime, err := c.one(ctx, frozen)
		switch {
		case err != nil:
			return Outcome{}, err
		case epoch != nil:
			return Outcome{Epoch: epoch, CutTime: cutTime, Rounds: int(o.Progress.rounds.Load()), Disks: c.outcome}, nil
		}
		if left := o.Group.Figures().Live; left < dirty {
			stuck = 0
		} else {
			stuck++
			c.tellChurn(left, o.Progress.sent.Load()-before, time.Since(began))
		}
	}
}

// catchUp is one CatchUp.
type catchUp struct {
	Options
	peer     Peer
	sessions []uint64
	outcome  []DiskOutcome
}

// one ships one round or cut. The epoch is nil unless a cut was wholly sent.
func (c *catchUp) one(ctx context.Context, frozen bool) (*tracking.Epoch, time.Time, error) {
	start, shipment := c.Group.Round, replication.NewID()
	if frozen {
		start, shipment = c.Group.Cut, c.Cut
	}
	epoch, err := start(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	cutTime := time.Now().UTC().Round(0)
	err = c.shipAll(ctx, epoch, shipment)
	switch {
	case err == nil && frozen:
		return epoch, cutTime, nil
	case err == nil || errors.Is(err, tracking.ErrBroken) && ctx.Err() == nil:
		return nil, time.Time{}, epoch.End()
	default:
		return nil, time.Time{}, errors.Join(err, epoch.Abort())
	}
}

// shipAll ships every disk's part at once, also where there is none: all disks have the cut then.
func (c *catchUp) shipAll(ctx context.Context, epoch *tracking.Epoch, shipment replication.ID) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, disk := range c.Disks {
		group.Go(func() error {
			c.sessions[i]++
			open := Open{Transfer: c.Transfer, Disk: disk.ID, Session: c.sessions[i], Shipment: shipment}
			root, sent, err := c.shipDisk(ctx, epoch, i, open)
			c.outcome[i].Root = root
			c.outcome[i].Bytes += sent
			return failure.Locate(err, "", disk.ID)
		})
	}
	return group.Wait()
}

// tellChurn tells how fast the machine has written while so much was sent.
func (c *catchUp) tellChurn(written, sent int64, took time.Duration) {
	if c.Churn != nil && took > 0 {
		perSecond := func(bytes int64) int64 { return int64(float64(bytes) / took.Seconds()) }
		c.Churn(Churn{DirtyBytesPerSecond: perSecond(written), ShippedBytesPerSecond: perSecond(sent)})
	}
}
