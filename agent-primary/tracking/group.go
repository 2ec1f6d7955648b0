package tracking

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// ErrEpochOpen is answered for a cut, a round or a Begin while an Epoch is open.
var ErrEpochOpen = errors.New("an epoch is open")

// Group is the tracked disks of one machine: what is cut at one instant. Its methods may be called concurrently; one
// Epoch is open at a time.
type Group struct {
	disks  []*Disk
	budget *Budget

	mu sync.Mutex
	// open is the present epoch; nil when none is. Guarded by mu.
	open *Epoch
	// held is how long the last flip kept writes out, in nanoseconds.
	held atomic.Int64
}

// NewGroup groups the disks of one machine. Budget may be shared with other groups.
func NewGroup(disks []*Disk, budget *Budget) *Group { return &Group{disks: disks, budget: budget} }

// Figures are what a group has to ship and holds, in bytes.
type Figures struct {
	// Live is marked since the last flip, Pending is in the epoch and not sent, Sent waits for the acknowledgement of a
	// commit. All three together are what has accumulated.
	Live, Pending, Sent int64
	// Kept is what the budget's copy-before-write holds, of every group that shares it; Budget is its limit.
	Kept, Budget int64
	// Held is how long the last cut or round kept writes from being admitted.
	Held time.Duration
}

// Size is a disk's size in bytes.
func (g *Group) Size(index int) int64 { return g.disks[index].Size() }

// Accumulated is what a replica does not have, by its last acknowledgement.
func (f Figures) Accumulated() int64 { return f.Live + f.Pending + f.Sent }

// Figures are the group's now. A block may be counted as live and as sent.
func (g *Group) Figures() Figures {
	f := Figures{Kept: g.budget.Used(), Budget: g.budget.Limit(), Held: time.Duration(g.held.Load())}
	for _, d := range g.disks {
		log := d.log.Load()
		f.Live += log.LiveBytes()
		f.Pending += log.EpochBytes()
		f.Sent += log.SentBytes()
	}
	return f
}

// Cut freezes all disks at one instant, which id names. It waits for the writes that were admitted before, which no later
// write does unless it meets one of them in a frozen block; ctx ends that wait. The Epoch holds what changed since the
// last that was acknowledged, less what rounds sent since. Failures: TRACKING_LOST where a disk's log is not exact.
func (g *Group) Cut(ctx context.Context, id replication.ID) (*Epoch, error) {
	return g.start(ctx, id, true)
}

// Round takes what is marked without freezing it: its content is read from the running disks, and what is written
// meanwhile is marked anew. It waits as Cut does.
func (g *Group) Round(ctx context.Context) (*Epoch, error) {
	return g.start(ctx, replication.NewID(), false)
}

func (g *Group) start(ctx context.Context, id replication.ID, frozen bool) (*Epoch, error) {
	oracle.hold(frozen)
	defer oracle.release(frozen)
	e, err := g.flip(id, frozen)
	if err != nil {
		return nil, err
	}
	for _, d := range g.disks {
		if err := d.drain(ctx); err != nil {
			return nil, errors.Join(err, e.End())
		}
	}
	// What a write of before could not mark is not in the epoch.
	if err := g.Exact(); err != nil {
		return nil, errors.Join(err, e.End())
	}
	if err := oracle.digest(e); err != nil {
		return nil, errors.Join(err, e.End())
	}
	return e, nil
}

// flip makes the live marks of all disks an epoch, at one instant.
func (g *Group) flip(id replication.ID, frozen bool) (*Epoch, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		return nil, ErrEpochOpen
	}
	if err := g.Exact(); err != nil {
		return nil, err
	}
	e := &Epoch{ID: id, group: g, frozen: frozen, cut: breakable{broken: make(chan struct{})}}
	for _, d := range g.disks {
		if err := d.noticed(d.log.Load().ReturnEpoch()); err != nil {
			return nil, err
		}
		e.freezes = append(e.freezes, d.freeze(e))
	}
	if err := g.turn(g.disks, func(i int) *freeze { return e.freezes[i] }); err != nil {
		return nil, err
	}
	e.Time = time.Now().UTC().Round(0)
	g.open = e
	return e, nil
}

// Exact is nil while every disk's log knows all writes since its baseline; else TRACKING_LOST.
func (g *Group) Exact() error {
	for _, d := range g.disks {
		if loss := d.Loss(); loss.Cause != hrl.None {
			return failure.New(failure.Precondition, failure.ReasonTrackingLost, "tracking is %s", loss).On("", d.id).
				Try("A resync puts the replica in step again.")
		}
	}
	return nil
}

// turn flips the logs of some disks with all their gates held. The caller holds mu.
func (g *Group) turn(disks []*Disk, frozen func(i int) *freeze) (err error) {
	began := time.Now()
	for _, d := range disks {
		d.gate.Lock()
	}
	for i, d := range disks {
		if flipped := d.log.Load().Flip(); flipped != nil && err == nil {
			err = fmt.Errorf("disk %s: %w", d.id, flipped)
		}
		d.epoch++
		d.frozen = frozen(i)
		if d.frozen != nil {
			d.frozen.epoch = d.epoch
		}
	}
	for _, d := range disks {
		d.gate.Unlock()
	}
	g.held.Store(int64(time.Since(began)))
	return err
}

// freeze is what the disk keeps for a cut; nil for a round.
func (d *Disk) freeze(e *Epoch) *freeze {
	if !e.frozen {
		return nil
	}
	return &freeze{
		image: d.image, log: d.log.Load(), admit: &d.admission, budget: e.group.budget, cut: &e.cut,
		kept: map[int64]*block{},
	}
}

// thaw ends what the disk keeps.
func (d *Disk) thaw() {
	d.gate.Lock()
	frozen := d.frozen
	d.frozen = nil
	d.gate.Unlock()
	if frozen != nil {
		frozen.over()
	}
}

// Begin makes tracking exact from now on for disks that a pass will compare whole, all when none is named: what was
// marked before is forgotten, and where the log's file has failed a new one takes its place. The owner has made it
// durable that their old baseline is void. The cuts are one instant. What is lost while Begin waits stays lost: the Source
// is not continuous then.
func (g *Group) Begin(ctx context.Context, baseline replication.ID, disks ...*Disk) ([]Cut, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		return nil, ErrEpochOpen
	}
	if len(disks) == 0 {
		disks = g.disks
	}
	var cuts []Cut
	for _, d := range disks {
		if err := d.renew(baseline); err != nil {
			return nil, err
		}
		cuts = append(cuts, Cut{ID: baseline, Since: baseline})
	}
	if err := g.turn(disks, func(int) *freeze { return nil }); err != nil {
		return nil, err
	}
	for _, d := range disks {
		if !fault.Enabled("begin-without-drain") {
			if err := d.drain(ctx); err != nil {
				return nil, err
			}
		}
		if err := d.noticed(d.log.Load().Discard()); err != nil {
			return nil, err
		}
	}
	return cuts, nil
}

// renew makes the log exact from the baseline on, one whose file works, with nothing in its epoch. A loss from here on
// counts: Begin flips after it.
func (d *Disk) renew(baseline replication.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log.Load()
	if log.InMemory() || log.Loss().Cause == hrl.WriteFailed || log.Restore() != nil {
		if err := d.replace(log, baseline); err != nil {
			return err
		}
	} else if err := log.Begin(baseline); err != nil {
		return errors.Join(err, d.told(log, log.Unrecorded()))
	}
	d.refused = nil
	return nil
}

// replace puts a new log that is exact from the baseline on in the place of one whose file failed. The caller holds mu.
func (d *Disk) replace(failed *hrl.Log, baseline replication.ID) error {
	known := d.known
	known.Opened = max(known.Opened, failed.Opened())
	fresh, err := hrl.Replace(d.logs, d.name, known)
	if err == nil {
		if err = fresh.Begin(baseline); err != nil {
			err = errors.Join(err, fresh.Abandon())
		}
	}
	if err != nil {
		return failure.New(failure.Precondition, failure.ReasonStorageFailed, "the log of the disk cannot be written: %w", err).
			On("", d.id).Try("See that %s is writable and has room.", d.logs.Path("."))
	}
	d.failed = append(d.failed, failed)
	d.gate.Lock()
	defer d.gate.Unlock()
	d.log.Store(fresh)
	return nil
}

// Follow names the baseline of all disks anew: a resync has committed, and the lineage is what their marks follow.
func (g *Group) Follow(lineage replication.ID) error {
	for _, d := range g.disks {
		if err := d.noticed(d.log.Load().Follow(lineage)); err != nil {
			return err
		}
	}
	return nil
}

// Restore gives everything that was sent back to live: the replica has lost what it had received. No epoch may be open.
func (g *Group) Restore() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != nil {
		return ErrEpochOpen
	}
	return g.each((*hrl.Log).Restore)
}

// each does something to every disk's log.
func (g *Group) each(do func(*hrl.Log) error) error {
	var all error
	for _, d := range g.disks {
		all = errors.Join(all, d.noticed(do(d.log.Load())))
	}
	return all
}
