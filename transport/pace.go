package transport

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The bytes that may pass at once: a tenth of a second's worth, within these bounds.
const (
	minBurst = 64 << 10
	maxBurst = 4 << 20
)

// Pacer keeps what passes below a limit. It is shared by all that the limit is for; methods may be called
// concurrently.
type Pacer struct {
	mu      sync.Mutex
	limit   int64         // guarded by mu
	limiter *rate.Limiter // nil without a limit; guarded by mu
	changed chan struct{} // closed when the limit is changed; guarded by mu
}

// NewPacer makes a pacer for so many bytes a second; 0 or less means without a limit.
func NewPacer(bytesPerSecond int64) *Pacer {
	p := &Pacer{changed: make(chan struct{})}
	p.SetLimit(bytesPerSecond)
	return p
}

// SetLimit changes the limit, in bytes a second, for those that wait too; 0 or less means none.
func (p *Pacer) SetLimit(bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit, p.limiter = max(0, bytesPerSecond), nil
	if p.limit > 0 {
		burst := int(min(max(p.limit/10, minBurst), maxBurst))
		p.limiter = rate.NewLimiter(rate.Limit(p.limit), burst)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// Limit is the present limit in bytes a second; 0 means none.
func (p *Pacer) Limit() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limit
}

// Wait returns when n more bytes may pass, or with the cause when ctx ends. n may be of any size: more than passes
// at once is waited for in parts.
func (p *Pacer) Wait(ctx context.Context, n int) error {
	for n > 0 {
		limiter, changed := p.present()
		if limiter == nil {
			break
		}
		part := min(n, limiter.Burst())
		passed, err := waitPart(ctx, limiter, part, changed)
		if err != nil {
			return err
		}
		if passed {
			n -= part
		}
	}
	return context.Cause(ctx)
}

func (p *Pacer) present() (*rate.Limiter, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limiter, p.changed
}

// waitPart waits for n bytes, n at most the burst; false when the limit was changed meanwhile.
func waitPart(ctx context.Context, limiter *rate.Limiter, n int, changed <-chan struct{}) (bool, error) {
	reservation := limiter.ReserveN(time.Now(), n)
	delay := reservation.Delay()
	if delay == 0 {
		return true, nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-changed:
		return false, nil
	case <-ctx.Done():
		reservation.Cancel()
		return false, context.Cause(ctx)
	}
}
