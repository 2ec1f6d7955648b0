package tracking

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// LiveOptions are what a tracked disk is opened with.
type LiveOptions struct {
	// ID is the disk's name.
	ID string
	// Image is the disk's, open for writing and locked. It is the Disk's from here on.
	Image disk.Image
	// Logs is the agent's own directory for logs, Log the name in it. Logs stays open longer than the Disk.
	Logs durable.Dir
	Log  string
	// Known is what the owner has recorded of the disk; its Size and Stamp are taken from Image.
	Known hrl.Disk
	// Lost records in the owner's own state that tracking is lost, durably when it answers nil. It is called once for
	// each loss, by a guest's write that waits for it, and calls no method of the Disk.
	Lost func(hrl.Loss) error
}

// Disk is one disk of a running machine: what its NBD export serves, with every write marked. Methods may be called
// concurrently, but for Close.
type Disk struct {
	id    string
	image disk.Image
	logs  durable.Dir
	name  string
	known hrl.Disk
	tell  func(hrl.Loss) error

	admission

	// mu is held while a loss is recorded and while a resync puts tracking right, so that the one comes before or after
	// the other.
	mu sync.Mutex
	// last is the loss that the owner was told of last; guarded by mu.
	last hrl.Loss
	// refused is why nothing may be written any more: a loss that nobody could record. Guarded by mu.
	refused error
	// failed are logs that were replaced; guarded by mu.
	failed []*hrl.Log
}

// zeroBytes is how much of a zeroing or trimming is admitted at a time.
const zeroBytes = 1 << 30

// OpenLive opens the disk's log and takes over the image. Loss says whether the log is exact; the owner records Opened
// before the disk is served. A log that cannot be opened is no error: the disk is served, its tracking lost. An error
// closes the image.
func OpenLive(o LiveOptions) (*Disk, error) {
	d, err := openLive(o)
	if err != nil {
		return nil, errors.Join(err, o.Image.Close())
	}
	return d, nil
}

func openLive(o LiveOptions) (*Disk, error) {
	stamp, err := o.Image.Stamp()
	if err != nil {
		return nil, err
	}
	d := &Disk{id: o.ID, image: o.Image, logs: o.Logs, name: o.Log, known: o.Known, tell: o.Lost}
	d.left = sync.NewCond(&d.gate)
	d.known.Size, d.known.Stamp = o.Image.Size(), stamp
	log, err := hrl.Open(o.Logs, o.Log, d.known)
	if err != nil {
		log, err = hrl.InMemory(d.known, hrl.Loss{Cause: hrl.WriteFailed, Evidence: err.Error()})
	}
	if err != nil {
		return nil, err
	}
	d.log.Store(log)
	if log.Loss().Cause != hrl.None {
		if err := d.noteLoss(log, nil); err != nil {
			return nil, errors.Join(err, log.Abandon())
		}
	}
	return d, nil
}

// ID is the disk's name.
func (d *Disk) ID() string { return d.id }

// Size is the disk's size in bytes.
func (d *Disk) Size() int64 { return d.image.Size() }

// LogicalSectorSize is the image's.
func (d *Disk) LogicalSectorSize() int { return d.image.LogicalSectorSize() }

// ReadOnly is false.
func (d *Disk) ReadOnly() bool { return false }

// Opened is the log's open counter, to be recorded before the disk is served.
func (d *Disk) Opened() uint64 { return d.log.Load().Opened() }

// Loss is why the disk's writes since the baseline are not all known; the zero Loss while they are.
func (d *Disk) Loss() hrl.Loss { return d.log.Load().Loss() }

// ReadAt reads the running disk.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) { return d.image.ReadAt(p, off) }

// Extents are the running disk's.
func (d *Disk) Extents(off, n int64) iter.Seq2[disk.Extent, error] { return d.image.Extents(off, n) }

// WriteAt writes p at off.
func (d *Disk) WriteAt(p []byte, off int64) (written int, err error) {
	n := int64(len(p))
	err = d.change(off, n, func(w *write) error {
		d.keep(w, off, n)
		written, err = d.image.WriteAt(p, off)
		return err
	})
	return written, err
}

// Zero makes the range read as zeros; its space stays allocated where keepSpace says so.
func (d *Disk) Zero(off, n int64, keepSpace bool) error {
	do := d.image.Unmap
	if keepSpace {
		do = d.image.Zero
	}
	return d.pieces(off, n, func(w *write, off, n int64) error {
		d.keep(w, off, n)
		return do(off, n)
	})
}

// Trim gives the range's space back and makes it read as zeros, but for blocks that a cut has frozen, which stay as
// they are: to keep them would cost memory for content that nobody wants.
func (d *Disk) Trim(off, n int64) error {
	return d.pieces(off, n, func(w *write, off, n int64) error {
		if w.frozen == nil {
			return d.image.Unmap(off, n)
		}
		return w.frozen.around(off, n, d.image.Unmap)
	})
}

// around does something to what of the range is not frozen.
func (f *freeze) around(off, n int64, do func(off, n int64) error) error {
	for at, end := off, off+n; at < end; {
		frozen, length, err := f.log.Next(at/hrl.BlockSize*hrl.BlockSize, end, zeroBytes)
		if err != nil {
			f.cut.end(err)
			return do(at, end-at)
		}
		stop := end
		if length > 0 {
			stop = min(frozen, end)
		}
		if stop > at {
			if err := do(at, stop-at); err != nil {
				return err
			}
		}
		at = max(stop, frozen+length)
	}
	return nil
}

// Flush makes every write that was answered durable. A failure makes tracking lost: what the disk holds is not known.
func (d *Disk) Flush() error { return d.judged(d.image.Flush()) }

// pieces is change of a range that may be long.
func (d *Disk) pieces(off, n int64, do func(w *write, off, n int64) error) error {
	if err := disk.CheckRange(d.Size(), off, n); err != nil {
		return err
	}
	for at := off; at < off+n; {
		length := min(zeroBytes, off+n-at)
		err := d.change(at, length, func(w *write) error { return do(w, at, length) })
		if err != nil {
			return err
		}
		at += length
	}
	return nil
}

// change admits one change of the range and does it: marks, then what is frozen is kept, then the image.
func (d *Disk) change(off, n int64, do func(w *write) error) error {
	if err := disk.CheckRange(d.Size(), off, n); err != nil || n == 0 {
		return err
	}
	log := d.log.Load()
	if err := log.Touch(off, n); err != nil {
		if err := d.noteLoss(log, nil); err != nil {
			return err
		}
	}
	w, err := d.admit(off, n)
	defer d.leave(w)
	if err != nil {
		return err
	}
	if fault.Enabled("late-writes") && rand.IntN(16) == 0 {
		time.Sleep(time.Second)
	}
	return d.judged(do(w))
}

// admit lets a write in. With a log that fails, it waits until that is recorded, and only with nowhere to record it is
// the write refused.
func (d *Disk) admit(off, n int64) (*write, error) {
	oracle.enter()
	w, log, failed := d.enter(off, n)
	oracle.leave()
	if failed != nil || log.Loss().Cause != hrl.None {
		return w, d.noteLoss(log, failed)
	}
	return w, nil
}

// keep keeps what the write will change of a frozen cut.
func (d *Disk) keep(w *write, off, n int64) {
	if w.frozen != nil {
		w.frozen.keep(off, n)
	}
}

// judged makes tracking lost when the image failed in a way that leaves its content unknown, and answers err as it is.
func (d *Disk) judged(err error) error {
	if !errors.Is(err, syscall.EIO) && !errors.Is(err, durable.ErrSync) {
		return err
	}
	return errors.Join(err, d.lose(hrl.Loss{
		Cause:    hrl.TrackingLost,
		Evidence: fmt.Sprintf("the image failed, so that its content is not known: %v", err),
	}))
}

// lose makes tracking lost, in the log and in the owner's records. An error says that neither could be written; then
// nothing more is written to the disk, for after a kill nobody would know.
func (d *Disk) lose(loss hrl.Loss) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log.Load()
	return d.told(log, log.Lose(loss))
}

// noteLoss is lose for a loss that the log has already, or a fault of marking in it. One that a resync has put right
// since, in this log or in another, is none any more.
func (d *Disk) noteLoss(log *hrl.Log, failed error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case log != d.log.Load():
		return d.refused
	case failed != nil:
		return d.told(log, log.Failed(failed))
	default:
		return d.told(log, log.Unrecorded())
	}
}

// told tells the owner of the log's loss, once; unrecorded is why the log itself does not have it. The caller holds mu.
func (d *Disk) told(log *hrl.Log, unrecorded error) error {
	loss := log.Loss()
	if d.last == loss || loss.Cause == hrl.None {
		return d.refused
	}
	d.last = loss
	err := d.tell(loss)
	if err != nil && (unrecorded != nil || log.InMemory()) {
		d.refused = fmt.Errorf("disk %s: %w", d.id, errors.Join(unrecorded, err))
	}
	return d.refused
}

// noticed tells the owner of a loss that the log found by itself, and answers err as it is.
func (d *Disk) noticed(err error) error {
	if log := d.log.Load(); err != nil && log.Loss().Cause != hrl.None {
		return errors.Join(err, d.noteLoss(log, nil))
	}
	return err
}

// Close closes the disk when no request is under way and no machine will send another: the image is stamped and the
// log closed cleanly. What was marked stays marked.
func (d *Disk) Close() error {
	stamp, err := d.image.Stamp()
	if err = d.judged(err); err != nil {
		err = errors.Join(err, d.log.Load().Abandon())
	} else {
		err = d.log.Load().Close(stamp)
	}
	for _, log := range d.failed {
		err = errors.Join(err, log.Abandon())
	}
	return errors.Join(err, d.image.Close())
}

// drain waits for the writes that were admitted before the present epoch.
func (d *Disk) drain(ctx context.Context) error {
	d.gate.Lock()
	epoch := d.epoch
	d.gate.Unlock()
	return d.awaitOlder(ctx, epoch, 0, d.Size())
}

// Baseline is the instant since which every write is marked, where the log is exact.
func (d *Disk) Baseline() replication.ID { return d.log.Load().Baseline() }
