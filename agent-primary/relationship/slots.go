package relationship

import (
	"context"
	"sync"
)

// Slots bounds how many relationships transfer at a time, first come first served. Methods may be called
// concurrently.
type Slots struct {
	mu      sync.Mutex
	limit   int             // guarded by mu
	taken   int             // guarded by mu
	waiting []chan struct{} // in order; guarded by mu
}

// NewSlots allows limit at a time, at least one.
func NewSlots(limit int) *Slots { return &Slots{limit: max(1, limit)} }

// SetLimit changes the limit. Those that have a slot keep it.
func (s *Slots) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = max(1, limit)
	s.grantLocked()
}

// Limit is the present limit.
func (s *Slots) Limit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// Acquire waits for a slot, or for the end of ctx. The caller calls release once.
func (s *Slots) Acquire(ctx context.Context) (release func(), err error) {
	granted := make(chan struct{})
	s.mu.Lock()
	s.waiting = append(s.waiting, granted)
	s.grantLocked()
	s.mu.Unlock()
	select {
	case <-granted:
		return s.release, nil
	case <-ctx.Done():
		s.leave(granted)
		return nil, context.Cause(ctx)
	}
}

func (s *Slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	s.grantLocked()
}

// leave gives up waiting, or gives back the slot that was granted meanwhile.
func (s *Slots) leave(granted chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, waiting := range s.waiting {
		if waiting == granted {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
	s.taken--
	s.grantLocked()
}

func (s *Slots) grantLocked() {
	for len(s.waiting) > 0 && s.taken < s.limit {
		close(s.waiting[0])
		s.waiting = s.waiting[1:]
		s.taken++
	}
}
