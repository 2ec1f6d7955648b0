package tracking

import "sync/atomic"

// Budget bounds the memory that copy-before-write takes, over every disk that shares it. The zero Budget allows
// nothing: every cut breaks at the first write to what it froze.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget allows limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Limit is how many bytes it allows.
func (b *Budget) Limit() int64 { return b.limit }

// Used is how many bytes are taken.
func (b *Budget) Used() int64 { return b.used.Load() }

// take takes n bytes, or none and says so.
func (b *Budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *Budget) give(n int64) { b.used.Add(-n) }
