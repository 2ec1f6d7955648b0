package tracking

import (
	"context"
	"sync"
	"sync/atomic"

	"vmreplica/internal/hrl"
)

// admission lets writes in, one disk's. Only this is under the gate: a write takes the present epoch, is counted and
// has its marks set. The I/O is not.
type admission struct {
	// log is the disk's; replaced under the gate, when a resync begins after its file failed.
	log atomic.Pointer[hrl.Log]

	gate sync.Mutex
	// left is told of writes that end while somebody waits for them.
	left *sync.Cond
	// epoch is the present one; guarded by gate, like everything here.
	epoch uint64
	// frozen is what the cut of the present epoch keeps of the one before; nil where nothing is frozen.
	frozen *freeze
	// under are the writes under way, the latest first.
	under   *write
	waiting int
}

// write is a change of the disk under way.
type write struct {
	off, n         int64
	epoch          uint64
	frozen         *freeze
	previous, next *write
}

var writes = sync.Pool{New: func() any { return new(write) }}

// enter admits a change of the range and marks it in log. The fault of a log that failed is the caller's to report,
// outside the gate; the write is admitted all the same.
func (a *admission) enter(off, n int64) (w *write, log *hrl.Log, fault error) {
	w = writes.Get().(*write)
	a.gate.Lock()
	defer a.gate.Unlock()
	log = a.log.Load()
	fault = log.Mark(off, n)
	*w = write{off: off, n: n, epoch: a.epoch, frozen: a.frozen, next: a.under}
	if a.under != nil {
		a.under.previous = w
	}
	a.under = w
	return w, log, fault
}

// leave counts the change out.
func (a *admission) leave(w *write) {
	a.gate.Lock()
	if w.previous != nil {
		w.previous.next = w.next
	} else {
		a.under = w.next
	}
	if w.next != nil {
		w.next.previous = w.previous
	}
	waiting := a.waiting
	a.gate.Unlock()
	if waiting > 0 {
		a.left.Broadcast()
	}
	*w = write{}
	writes.Put(w)
}

// awaitOlder waits until no change that meets [off, off+n) and was admitted before epoch is under way.
func (a *admission) awaitOlder(ctx context.Context, epoch uint64, off, n int64) error {
	a.gate.Lock()
	defer a.gate.Unlock()
	if !a.older(epoch, off, n) {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		a.gate.Lock()
		defer a.gate.Unlock()
		a.left.Broadcast()
	})
	defer stop()
	a.waiting++
	defer func() { a.waiting-- }()
	for a.older(epoch, off, n) {
		if err := ctx.Err(); err != nil {
			return err
		}
		a.left.Wait()
	}
	return nil
}

func (a *admission) older(epoch uint64, off, n int64) bool {
	for w := a.under; w != nil; w = w.next {
		if w.epoch < epoch && w.off < off+n && off < w.off+w.n {
			return true
		}
	}
	return false
}
