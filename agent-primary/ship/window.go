package ship

import (
	"context"
	"sync"

	"vmreplica/agent-primary/tracking"
)

// window is a shipment's frames between the reader and the replica's acknowledgement.
type window struct {
	// credit is how much plaintext may be under way, in bytes; one frame may always be.
	credit int64

	mu sync.Mutex
	// moved is closed and made anew with each acknowledgement; guarded by mu, like everything here.
	moved chan struct{}
	// reading counts the frames that were read and not sent.
	reading int
	// waiting are the frames that were sent and not acknowledged, in order; paid is what they cost.
	waiting []underWay
	paid    int64
	// sent and acked are the last frames' sequences.
	sent, acked uint64
	// finished says that the finish was sent.
	finished bool
}

// underWay is a frame that was sent.
type underWay struct {
	cost   int64
	ranges []tracking.Range
}

func newWindow(credit int64) *window { return &window{credit: credit, moved: make(chan struct{})} }

// read counts a frame as read.
func (w *window) read() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reading++
}

// pay waits until the next frame may be under way and answers its sequence.
func (w *window) pay(ctx context.Context, frame underWay) (sequence uint64, err error) {
	err = w.await(ctx, func() bool {
		if w.paid > 0 && w.paid+frame.cost > w.credit {
			return false
		}
		w.paid += frame.cost
		w.reading--
		w.waiting = append(w.waiting, frame)
		w.sent++
		sequence = w.sent
		return true
	})
	return sequence, err
}

// settled waits until nothing is under way: no frame that was read is without its acknowledgement.
func (w *window) settled(ctx context.Context) error {
	return w.await(ctx, func() bool { return w.reading == 0 && len(w.waiting) == 0 })
}

// await waits until is, which is called with mu held, answers true.
func (w *window) await(ctx context.Context, is func() bool) error {
	for {
		w.mu.Lock()
		done, moved := is(), w.moved
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// finish says that no frame follows.
func (w *window) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = true
}

// acknowledge takes frames up to a sequence back and hands what they brought over to sent.
func (w *window) acknowledge(sequence uint64, sent func([]tracking.Range) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sequence < w.acked || sequence > w.sent {
		return protocol("frame %d acknowledged; %d to %d can be", sequence, w.acked, w.sent)
	}
	return w.acknowledgeLocked(sequence, sent)
}

func (w *window) acknowledgeLocked(sequence uint64, sent func([]tracking.Range) error) error {
	for ; w.acked < sequence; w.acked++ {
		if err := sent(w.waiting[0].ranges); err != nil {
			return err
		}
		w.paid -= w.waiting[0].cost
		w.waiting = w.waiting[1:]
	}
	close(w.moved)
	w.moved = make(chan struct{})
	return nil
}

// close takes every frame for acknowledged: the replica has finished.
func (w *window) close(sent func([]tracking.Range) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.finished {
		return protocol("a shipment finished after frame %d, before its end", w.sent)
	}
	return w.acknowledgeLocked(w.sent, sent)
}
