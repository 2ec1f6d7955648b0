package receive

import (
	"context"
	"sync"
)

// credit is what a primary allows to be under way. What is under way never exceeds it, but for one message alone.
type credit struct {
	limit int64

	mu       sync.Mutex
	underWay int64
	// returned is closed and replaced when credit comes back.
	returned chan struct{}
}

func newCredit(limit int64) *credit {
	return &credit{limit: limit, returned: make(chan struct{})}
}

// take waits until cost may be under way.
func (c *credit) take(ctx context.Context, cost int64) error {
	for {
		c.mu.Lock()
		if c.underWay == 0 || c.underWay+cost <= c.limit {
			c.underWay += cost
			c.mu.Unlock()
			return nil
		}
		returned := c.returned
		c.mu.Unlock()
		select {
		case <-returned:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// give takes back n; false when so much was not under way.
func (c *credit) give(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n <= 0 || n > c.underWay {
		return false
	}
	c.underWay -= n
	close(c.returned)
	c.returned = make(chan struct{})
	return true
}
