package receive

import (
	"context"
	"slices"
	"sync"

	"vmreplica/blockdiff"
)

// segments is a session's position and the leaves of every segment between proven and digested that holds
// anything. A segment that is not in open reads as zeros.
type segments struct {
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	limit    int

	mu sync.Mutex
	// digested is the first block whose digest was not sent; proven the first segment that is not proven, chain
	// the chain value before it.
	digested, proven int64
	chain            blockdiff.Hash
	open             map[int64][]blockdiff.Hash
	// moved is closed and replaced when proven moves.
	moved chan struct{}
}

func newSegments(g blockdiff.Geometry, prover *blockdiff.Prover, limit int, segment int64, chain blockdiff.Hash) *segments {
	return &segments{
		geometry: g, prover: prover, limit: limit,
		digested: g.FirstBlock(segment), proven: segment, chain: chain,
		open: map[int64][]blockdiff.Hash{}, moved: make(chan struct{}),
	}
}

// digest records the leaves of the next blocks; nil for count blocks of zeros. It waits while too many segments
// are open.
func (s *segments) digest(ctx context.Context, count int64, leaves []blockdiff.Hash) error {
	for {
		s.mu.Lock()
		if leaves == nil || !s.isFull() {
			break
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
	defer s.mu.Unlock()
	for i, leaf := range leaves {
		s.put(s.digested+int64(i), leaf)
	}
	s.digested += count
	return nil
}

// full says that digest would wait.
func (s *segments) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isFull()
}

// isFull never holds up a segment that was begun.
func (s *segments) isFull() bool {
	return len(s.open) >= s.limit && s.open[s.digested/blockdiff.BlocksPerSegment] == nil
}

// put sets a block's leaf.
func (s *segments) put(block int64, leaf blockdiff.Hash) {
	segment := block / blockdiff.BlocksPerSegment
	first, blocks := s.geometry.SegmentBlocks(segment)
	leaves := s.open[segment]
	if leaves == nil {
		if leaf == s.prover.ZeroLeaf() {
			return
		}
		leaves = make([]blockdiff.Hash, blocks)
		for i := range leaves {
			leaves[i] = s.prover.ZeroLeaf()
		}
		s.open[segment] = leaves
	}
	leaves[block-first] = leaf
}

// replace sets the leaf of a block whose content was replaced. Twice the limit of open segments is more than an
// honest primary ever touches.
func (s *segments) replace(block int64, leaf blockdiff.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(block, leaf)
	if len(s.open) > 2*s.limit {
		return protocol("frames touch more than %d segments that are not proven", 2*s.limit)
	}
	return nil
}

// clear makes whole blocks zeros.
func (s *segments) clear(first, end int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for block := first; block < end; {
		segment := block / blockdiff.BlocksPerSegment
		next := min(end, (segment+1)*blockdiff.BlocksPerSegment)
		if s.open[segment] != nil {
			for ; block < next; block++ {
				s.put(block, s.prover.ZeroLeaf())
			}
		}
		block = next
	}
}

// bounds are the first byte that a frame may touch and the first that it may not.
func (s *segments) bounds() (from, to int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proven * blockdiff.SegmentSize, min(s.digested*blockdiff.BlockSize, s.geometry.Size())
}

// digestedSegments is the number of segments digested to their end.
func (s *segments) digestedSegments() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.digested == s.geometry.Blocks() {
		return s.geometry.Segments()
	}
	return s.digested / blockdiff.BlocksPerSegment
}

// position is the cursor that may be saved when everything so far is durable.
func (s *segments) position() (segment int64, chain blockdiff.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proven, s.chain
}

// proveZeros proves segments from the first unproven one on that read as zeros, up to count; it stops at one that
// does not.
func (s *segments) proveZeros(count int64) (proven int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for proven < count && s.isZero(s.proven+proven) {
		delete(s.open, s.proven+proven)
		proven++
	}
	if proven > 0 {
		s.chain = s.prover.ExtendZero(s.geometry, s.chain, s.proven, proven)
		s.advance(proven)
	}
	return proven
}

func (s *segments) isZero(segment int64) bool {
	leaves := s.open[segment]
	return leaves == nil || !slices.ContainsFunc(leaves, func(h blockdiff.Hash) bool { return h != s.prover.ZeroLeaf() })
}

// prove compares the first unproven segment with the primary's hash and proves it when they are equal, or in any
// case when the session only verifies; its leaves when they are not.
func (s *segments) prove(theirs blockdiff.Hash, anyway bool) (mismatch []blockdiff.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, blocks := s.geometry.SegmentBlocks(s.proven)
	leaves := s.open[s.proven]
	ours := s.prover.ZeroSegment(blocks)
	if leaves != nil {
		ours = s.prover.Segment(leaves)
	}
	if ours != theirs {
		mismatch = s.leaves(leaves, blocks)
		if !anyway {
			return mismatch
		}
	}
	delete(s.open, s.proven)
	s.chain = s.prover.Extend(s.chain, ours)
	s.advance(1)
	return mismatch
}

// leaves is a copy of a segment's leaves.
func (s *segments) leaves(open []blockdiff.Hash, blocks int64) []blockdiff.Hash {
	leaves := make([]blockdiff.Hash, blocks)
	for i := range leaves {
		leaves[i] = s.prover.ZeroLeaf()
	}
	copy(leaves, open)
	return leaves
}

func (s *segments) advance(count int64) {
	s.proven += count
	close(s.moved)
	s.moved = make(chan struct{})
}
