package nbd

import (
	"container/list"
	"context"
	"sync"
)

// asideBytes is the largest request that a connection may have in flight beside the budget, one at a time.
const asideBytes = 256 << 10

// budget is the payload memory of a server. It is granted in order of asking; a share that is at its own limit
// lets others pass.
type budget struct {
	size int64

	mu      sync.Mutex
	free    int64      // guarded by mu
	waiters *list.List // of *waiter, guarded by mu
}

func newBudget(size int64) *budget {
	return &budget{size: size, free: size, waiters: list.New()}
}

// share is what one connection holds of the budget; guarded by budget.mu. Only its reader asks, so that it has one
// waiter at most.
type share struct {
	held  int64
	aside bool
}

// grant is memory to be given back. The zero grant is nothing.
type grant struct {
	bytes int64
	aside bool
}

type waiter struct {
	share *share
	bytes int64
	ready chan grant // of one
}

// acquire waits until s may have n bytes more, or for ctx. A request above the budget's size is granted when it
// has the budget for itself.
func (b *budget) acquire(ctx context.Context, s *share, n int64) (grant, error) {
	if n == 0 {
		return grant{}, nil
	}
	b.mu.Lock()
	if g, ok := b.give(s, n, !b.blocked(s)); ok {
		b.mu.Unlock()
		return g, nil
	}
	w := &waiter{share: s, bytes: n, ready: make(chan grant, 1)}
	place := b.waiters.PushBack(w)
	b.mu.Unlock()
	select {
	case g := <-w.ready:
		return g, nil
	case <-ctx.Done():
		b.leave(place, w)
		return grant{}, ctx.Err()
	}
}

// leave takes a waiter away; what it was granted meanwhile goes back.
func (b *budget) leave(place *list.Element, w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case g := <-w.ready:
		b.takeBack(w.share, g)
	default:
		b.waiters.Remove(place)
	}
	b.serve()
}

// release gives a grant back.
func (b *budget) release(s *share, g grant) {
	if g == (grant{}) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.takeBack(s, g)
	b.serve()
}

// contended says whether another than s waits for memory that is not its own to free.
func (b *budget) contended(s *share) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blocked(s)
}

// blocked says whether a share other than s waits for the budget itself, not for its own limit. The caller holds
// mu.
func (b *budget) blocked(s *share) bool {
	for e := b.waiters.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiter)
		if w.share != s && b.within(w.share, w.bytes) {
			return true
		}
	}
	return false
}

// serve grants what can be granted. The first that waits for the budget itself closes it to those behind, so that
// a large request is not passed by small ones for ever. The caller holds mu.
func (b *budget) serve() {
	open := true
	for e := b.waiters.Front(); e != nil; {
		next := e.Next()
		w := e.Value.(*waiter)
		if g, ok := b.give(w.share, w.bytes, open); ok {
			b.waiters.Remove(e)
			w.ready <- g
		} else if b.within(w.share, w.bytes) {
			open = false
		}
		e = next
	}
}

// give grants n bytes now or not at all; open says whether nobody waits before s. The caller holds mu.
func (b *budget) give(s *share, n int64, open bool) (grant, bool) {
	charge := min(n, b.size)
	switch {
	case open && b.within(s, n) && charge <= b.free:
		b.free -= charge
		s.held += charge
		return grant{bytes: charge}, true
	case !s.aside && n <= asideBytes:
		s.aside = true
		return grant{aside: true}, true
	default:
		return grant{}, false
	}
}

// within says whether a share's own limit allows n bytes more. The caller holds mu.
func (b *budget) within(s *share, n int64) bool { return s.held == 0 || s.held+n <= b.size/4 }

// takeBack is the reverse of give. The caller holds mu.
func (b *budget) takeBack(s *share, g grant) {
	b.free += g.bytes
	s.held -= g.bytes
	if g.aside {
		s.aside = false
	}
}
