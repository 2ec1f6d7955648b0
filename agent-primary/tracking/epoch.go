package tracking

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// ErrNotInEpoch is answered for reading a range that the epoch does not hold, or holds no longer.
var ErrNotInEpoch = errors.New("range not in the epoch")

// ErrRound is answered for acknowledging a round: only a cut is an instant of the machine.
var ErrRound = errors.New("a round cannot be acknowledged")

// ErrEpochOver is answered for acknowledging an epoch that has ended.
var ErrEpochOver = errors.New("the epoch is over")

// Range is [Offset, Offset+Length) of a disk, in bytes.
type Range struct{ Offset, Length int64 }

// Epoch is what a cut or a round ships, of all disks of a group. It is ended once, by Ack, Abort or End; the other
// methods may be called concurrently before. Disks are counted as in the group.
type Epoch struct {
	// ID is the name of the cut, or of the round.
	ID replication.ID
	// Time is the instant of a cut, by this host's clock.
	Time time.Time

	group   *Group
	frozen  bool
	cut     breakable
	freezes []*freeze
}

// longestRun bounds one range of Extents.
const longestRun = 1 << 20

// Extents yields what of a disk is in the epoch and not sent, in order, ranges of at most 1 MiB. It may run beside
// Sent: what is sent before a range is asked for is not yielded.
func (e *Epoch) Extents(index int) iter.Seq2[Range, error] {
	return func(yield func(Range, error) bool) {
		d := e.group.disks[index]
		for off := int64(0); off < d.Size(); {
			at, n, err := d.log.Load().Next(off, d.Size(), longestRun)
			if err != nil {
				yield(Range{}, d.noticed(err))
				return
			}
			if n <= 0 || !yield(Range{at, n}, nil) {
				return
			}
			off = at + n
		}
	}
}

// Kept are the ranges of a disk whose old content is kept in memory: what is sent first sets the budget free.
func (e *Epoch) Kept(index int) []Range {
	if e.freezes[index] == nil {
		return nil
	}
	return e.freezes[index].keptRuns(e.group.disks[index].Size())
}

// ReadAt fills p with the content of a disk: of a cut as it was then, of a round as it is. Every block of the range must
// be in the epoch, else ErrNotInEpoch. ErrBroken when the cut could not be kept; there is nothing to be had of it any
// more, and End makes a round possible.
func (e *Epoch) ReadAt(index int, p []byte, off int64) error {
	d := e.group.disks[index]
	if err := disk.CheckRange(d.Size(), off, int64(len(p))); err != nil || len(p) == 0 {
		return err
	}
	if err := e.holds(d, off, int64(len(p))); err != nil {
		return err
	}
	if frozen := e.freezes[index]; frozen != nil {
		return frozen.readAt(p, off)
	}
	_, err := d.image.ReadAt(p, off)
	return err
}

func (e *Epoch) holds(d *Disk, off, n int64) error {
	first := off / hrl.BlockSize * hrl.BlockSize
	longest := (n/hrl.BlockSize + 2) * hrl.BlockSize
	at, length, err := d.log.Load().Next(first, off+n, longest)
	if err != nil {
		return d.noticed(err)
	}
	if at != first || at+length < off+n {
		return fmt.Errorf("%w: %d bytes at %d", ErrNotInEpoch, n, off)
	}
	return nil
}

// Sent says that the replica has what lies in the range, in what is yet to be committed: it is no longer frozen. Blocks
// that the range covers in part stay.
func (e *Epoch) Sent(index int, off, n int64) error {
	d := e.group.disks[index]
	if err := disk.CheckRange(d.Size(), off, n); err != nil {
		return err
	}
	if fault.Enabled("clear-on-receipt") {
		defer d.log.Load().Forget() // which the disk's last range makes possible
	}
	if frozen := e.freezes[index]; frozen != nil {
		return d.noticed(frozen.sent(off, n))
	}
	return d.noticed(d.log.Load().Sent(off, n))
}

// Frozen says whether it is a cut's.
func (e *Epoch) Frozen() bool { return e.frozen }

// Broken is closed when the cut can no longer be kept. A round never breaks.
func (e *Epoch) Broken() <-chan struct{} { return e.cut.broken }

// Err is why the cut is broken, ErrBroken in its chain; nil while it holds.
func (e *Epoch) Err() error { return e.cut.err() }

// Ack says that the commit is acknowledged which holds this cut and everything that rounds sent before it: those marks
// are forgotten. It is refused, and the Epoch stays open, for a round and for a cut that is not wholly sent
// (hrl.ErrPending, or ErrBroken where it never will be). One that was broken after it was sent was sent as it was. Where a
// log is lost the Epoch ends as by Abort, and why is answered.
func (e *Epoch) Ack() error {
	g := e.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if !e.frozen {
		return ErrRound
	}
	if g.open != e {
		return ErrEpochOver
	}
	for _, d := range g.disks {
		if n := d.log.Load().EpochBytes(); n != 0 {
			return errors.Join(e.cut.err(), fmt.Errorf("%w: %d bytes of disk %s were not sent", hrl.ErrPending, n, d.id))
		}
	}
	e.over()
	if err := g.Exact(); err != nil {
		return errors.Join(err, g.each((*hrl.Log).Restore))
	}
	return g.each((*hrl.Log).Forget)
}

// Abort gives the epoch back to live, and everything that was sent since the last acknowledgement: the replica has
// discarded it.
func (e *Epoch) Abort() error { return e.finish((*hrl.Log).Restore) }

// End gives what is not sent back to live and leaves the rest as sent: a round is over, or a cut that broke or is to be
// tried again turns into one.
func (e *Epoch) End() error { return e.finish((*hrl.Log).ReturnEpoch) }

func (e *Epoch) finish(do func(*hrl.Log) error) error {
	g := e.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open != e {
		return nil
	}
	e.over()
	return g.each(do)
}

// over ends the epoch. The caller holds the group's mu.
func (e *Epoch) over() {
	for _, d := range e.group.disks {
		d.thaw()
	}
	e.group.open = nil
}
