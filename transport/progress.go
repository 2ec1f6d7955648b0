package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoProgress is in the cause of a context that a Watchdog ended.
var ErrNoProgress = errors.New("no progress")

// Watchdog ends a context when nothing moves. A connection that answers and yet moves nothing is found by this
// alone. Methods may be called concurrently.
type Watchdog struct {
	timeout time.Duration
	start   time.Time
	last    atomic.Int64 // when something moved last, nanoseconds after start
	moved   atomic.Int64
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // nil once stopped; guarded by mu
}

// NewWatchdog makes a context that ends, cause ErrNoProgress, when no byte is noted for timeout. The caller calls
// Stop.
func NewWatchdog(ctx context.Context, timeout time.Duration) (context.Context, *Watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &Watchdog{timeout: timeout, start: time.Now(), cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(timeout, w.examine)
	return ctx, w
}

// Note says that n bytes moved; none is no progress.
func (w *Watchdog) Note(n int) {
	if n <= 0 {
		return
	}
	w.moved.Add(int64(n))
	w.last.Store(int64(time.Since(w.start)))
}

// Moved is the bytes noted so far.
func (w *Watchdog) Moved() int64 { return w.moved.Load() }

// Stop ends the context and the watching; later calls do nothing.
func (w *Watchdog) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	w.cancel(nil)
}

// examine ends the context, or looks again when the present rest has passed.
func (w *Watchdog) examine() {
	quiet := time.Since(w.start) - time.Duration(w.last.Load())
	if quiet >= w.timeout {
		w.cancel(fmt.Errorf("nothing moved for %s: %w", w.timeout, ErrNoProgress))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Reset(w.timeout - quiet)
	}
}
