package ship

import (
	"context"
	"errors"
	"sync"
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
	// Cut is the cut's id, and names its shipments. The caller has recorded it. A cut that breaks is tried again under
	// the same name.
	Cut   replication.ID
	Proof blockdiff.Algorithm
	Group *tracking.Group
	// Disks are the group's, all of them, in its order.
	Disks    []Disk
	Limits   Limits
	Progress *Progress
	// Churn is told when a round does not shrink what is dirty; it may be nil.
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
// everything that was sent is marked again. Failures: those of the Peer, TRACKING_LOST, PROOF_FAILED,
// IMAGE_UNREADABLE; tracking.ErrEpochOpen when somebody else ships the group's disks.
func CatchUp(ctx context.Context, peer Peer, o Options) (Outcome, error) {
	c, err := newCatchUp(peer, o)
	if err != nil {
		return Outcome{}, err
	}
	for {
		epoch, err := c.next(ctx)
		if err != nil {
			return Outcome{}, err
		}
		if epoch != nil {
			return Outcome{Epoch: epoch, CutTime: epoch.Time, Rounds: c.rounds, Disks: c.outcome}, nil
		}
	}
}

// catchUp is one CatchUp.
type catchUp struct {
	Options
	peer       Peer
	prover     *blockdiff.Prover
	encoder    *blockdiff.Encoder
	geometries []blockdiff.Geometry
	// payloads are buffers of frames that were sent, *[]byte.
	payloads sync.Pool

	sessions []uint64
	outcome  []DiskOutcome
	rounds   int
	// least is the smallest that was dirty after a round, and stuck how many rounds in a row did not fall below it.
	least int64
	stuck int
	// broke says that the last cut did; a round follows.
	broke bool
}

func newCatchUp(peer Peer, o Options) (*catchUp, error) {
	prover, err := blockdiff.NewProver(o.Proof)
	if err != nil {
		return nil, failure.New(failure.Unsupported, failure.ReasonUnsupported, "%w", err)
	}
	c := &catchUp{
		Options: o, peer: peer, prover: prover, encoder: blockdiff.NewEncoder(),
		sessions: make([]uint64, len(o.Disks)), outcome: make([]DiskOutcome, len(o.Disks)),
	}
	for i, disk := range o.Disks {
		geometry, err := blockdiff.NewGeometry(o.Group.Size(i))
		if err != nil {
			return nil, failure.New(failure.Invalid, failure.ReasonSizeMismatch, "%w", err).On("", disk.ID)
		}
		c.geometries = append(c.geometries, geometry)
		c.sessions[i], c.outcome[i].ID = disk.Session, disk.ID
	}
	c.least = c.dirty()
	return c, nil
}

// dirty is what is marked and not sent, in bytes.
func (c *catchUp) dirty() int64 {
	figures := c.Group.Figures()
	return figures.Live + figures.Pending
}

// next ships one round, or the cut. The epoch is nil unless it is that of a cut that was wholly sent.
func (c *catchUp) next(ctx context.Context) (*tracking.Epoch, error) {
	dirty := c.dirty()
	fits := dirty <= c.Group.Figures().Budget
	epoch, err := c.begin(ctx, !c.broke && (fits || c.stuck >= stuckRounds))
	if err != nil {
		return nil, err
	}
	c.rounds++
	c.Progress.begin(dirty)
	began := time.Now()
	err = c.shipAll(ctx, epoch)
	if lost := c.Group.Exact(); lost != nil {
		err = errors.Join(lost, err)
	}
	switch {
	case err != nil:
		return nil, errors.Join(err, epoch.Abort())
	case epoch.Frozen() && c.Group.Figures().Pending == 0:
		return epoch, nil
	}
	c.broke = epoch.Frozen()
	if err := epoch.End(); err != nil {
		return nil, errors.Join(err, c.Group.Restore())
	}
	c.judge(dirty, time.Since(began))
	return nil, nil
}

// begin begins the cut, or a round.
func (c *catchUp) begin(ctx context.Context, cut bool) (epoch *tracking.Epoch, err error) {
	if cut {
		epoch, err = c.Group.Cut(ctx, c.Cut)
	} else {
		epoch, err = c.Group.Round(ctx)
	}
	if err == nil || errors.Is(err, tracking.ErrEpochOpen) {
		return epoch, err
	}
	return nil, errors.Join(err, c.Group.Restore())
}

// shipAll ships every disk's part at once, also where there is none: all disks have the cut then. Of a cut that breaks
// nothing more is read, but what was read of it is sent to its end, so that it is proven and durable.
func (c *catchUp) shipAll(ctx context.Context, epoch *tracking.Epoch) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, disk := range c.Disks {
		group.Go(func() error {
			c.sessions[i]++
			root, err := c.shipDisk(ctx, epoch, i)
			c.outcome[i].Root = root
			return failure.Locate(err, "", disk.ID)
		})
	}
	return group.Wait()
}

// judge notes whether what is dirty shrank, and tells how fast the machine wrote meanwhile where it did not.
func (c *catchUp) judge(before int64, took time.Duration) {
	left := c.dirty()
	if left < c.least {
		c.least, c.stuck = left, 0
		return
	}
	c.stuck++
	if c.Churn == nil {
		return
	}
	sent := c.Progress.present.Load()
	written := max(0, left-max(0, before-sent))
	perSecond := func(bytes int64) int64 { return int64(float64(bytes) / max(took, time.Millisecond).Seconds()) }
	c.Churn(Churn{DirtyBytesPerSecond: perSecond(written), ShippedBytesPerSecond: perSecond(sent)})
}
