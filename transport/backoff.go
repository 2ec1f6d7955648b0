package transport

import (
	"math/rand/v2"
	"time"
)

// Backoff spreads the attempts after failures: each wait is anywhere up to a ceiling that doubles from base to
// most. It is for one goroutine.
type Backoff struct {
	base, most time.Duration
	random     func() float64
	attempts   int
}

// NewBackoff makes a backoff; random is in [0, 1), nil means math/rand.
func NewBackoff(base, most time.Duration, random func() float64) *Backoff {
	if random == nil {
		random = rand.Float64
	}
	return &Backoff{base: base, most: most, random: random}
}

// Next is how long to wait before the next attempt: more than zero, at most the present ceiling.
func (b *Backoff) Next() time.Duration {
	ceiling := b.base
	for range b.attempts {
		if ceiling >= b.most/2 {
			ceiling = b.most
			break
		}
		ceiling *= 2
	}
	b.attempts++
	ceiling = min(ceiling, b.most)
	return min(time.Duration(b.random()*float64(ceiling))+1, ceiling)
}

// Attempts is how often Next was called since the last Reset.
func (b *Backoff) Attempts() int { return b.attempts }

// Reset begins anew, after a success.
func (b *Backoff) Reset() { b.attempts = 0 }
