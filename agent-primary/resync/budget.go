package resync

import (
	"sync"
	"sync/atomic"

	"vmreplica/blockdiff"
)

// Budget bounds the blocks that all passes of an agent hold while they wait for a refinement.
type Budget struct {
	free atomic.Int64
	pool sync.Pool
}

// NewBudget allows so many bytes of blocks, at least one block.
func NewBudget(bytes int64) *Budget {
	b := &Budget{pool: sync.Pool{New: func() any { return new([blockdiff.BlockSize]byte) }}}
	b.free.Store(max(bytes/blockdiff.BlockSize, 1))
	return b
}

// hold copies a block; nil when the budget is used up.
func (b *Budget) hold(block []byte) *held {
	if b.free.Add(-1) < 0 {
		b.free.Add(1)
		return nil
	}
	h := &held{budget: b, buffer: b.pool.Get().(*[blockdiff.BlockSize]byte)}
	h.data = h.buffer[:copy(h.buffer[:], block)]
	return h
}

// held is the copy of one block.
type held struct {
	budget *Budget
	buffer *[blockdiff.BlockSize]byte
	data   []byte
}

func (h *held) release() {
	h.budget.pool.Put(h.buffer)
	h.budget.free.Add(1)
	h.buffer, h.data = nil, nil
}
