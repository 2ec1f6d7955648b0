package resync

import (
	"slices"
	"sort"

	"vmreplica/blockdiff"
)

// window holds the segments between the last one that the replica proved and the last one that was compared, in
// order and without a gap.
type window struct {
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	entries  []entry
	// next is the first block that was not added yet; sent the first segment whose proof was not taken yet.
	next, sent int64
	// proven is the first segment that the replica has not proven, chain the chain value before it.
	proven int64
	chain  blockdiff.Hash
	// content counts the entries that have leaves.
	content int
}

// entry is one segment, or a run of segments that read as zeros and are complete.
type entry struct {
	first, count int64
	// blocks is how many blocks of a single segment were added.
	blocks int64
	// waiting is how many of its blocks wait for a refinement.
	waiting int
	// leaves has a leaf for each block of the segment; nil while all read as zeros.
	leaves []blockdiff.Hash
}

func newWindow(g blockdiff.Geometry, prover *blockdiff.Prover, from Cursor) *window {
	return &window{
		geometry: g, prover: prover,
		next: g.FirstBlock(from.Segment), sent: from.Segment, proven: from.Segment, chain: from.Chain,
	}
}

// add adds the next blocks: leaves within one segment, or count blocks of zeros.
func (w *window) add(count int64, leaves []blockdiff.Hash) {
	for count > 0 {
		tail := w.tail()
		first, blocks := w.geometry.SegmentBlocks(w.next / blockdiff.BlocksPerSegment)
		if leaves == nil && w.next == first && count >= blocks {
			w.addZeroSegment()
			w.next += blocks
			count -= blocks
			continue
		}
		n := min(count, first+blocks-w.next)
		if leaves != nil {
			w.fill(tail, int(blocks), int(w.next-first), leaves[:n])
			leaves = leaves[n:]
		}
		tail.blocks += n
		w.next += n
		count -= n
	}
}

// tail is the entry that the next block belongs to.
func (w *window) tail() *entry {
	segment := w.next / blockdiff.BlocksPerSegment
	if n := len(w.entries); n > 0 && w.entries[n-1].first+w.entries[n-1].count > segment {
		return &w.entries[n-1]
	}
	w.entries = append(w.entries, entry{first: segment, count: 1})
	return &w.entries[len(w.entries)-1]
}

// addZeroSegment makes the fresh tail a whole segment of zeros, joined with a run of them before it whose proof
// was not taken.
func (w *window) addZeroSegment() {
	n := len(w.entries)
	tail := &w.entries[n-1]
	_, tail.blocks = w.geometry.SegmentBlocks(tail.first)
	if n < 2 {
		return
	}
	if before := &w.entries[n-2]; before.leaves == nil && w.complete(before) && before.first >= w.sent {
		before.count++
		w.entries = w.entries[:n-1]
	}
}

// fill writes leaves at a position of an entry; until then the entry's blocks were zeros.
func (w *window) fill(e *entry, blocks, position int, leaves []blockdiff.Hash) {
	if e.leaves == nil {
		w.content++
		e.leaves = make([]blockdiff.Hash, blocks)
		for i := range e.leaves {
			e.leaves[i] = w.prover.ZeroLeaf()
		}
	}
	copy(e.leaves[position:], leaves)
}

func (w *window) complete(e *entry) bool {
	_, blocks := w.geometry.SegmentBlocks(e.first)
	return e.waiting == 0 && (e.count > 1 || e.blocks == blocks)
}

// find is the entry of a segment; nil when it is not in the window.
func (w *window) find(segment int64) *entry {
	i := sort.Search(len(w.entries), func(i int) bool {
		return w.entries[i].first+w.entries[i].count > segment
	})
	if i == len(w.entries) || w.entries[i].first > segment {
		return nil
	}
	return &w.entries[i]
}

// setLeaf changes the leaf of a block whose segment was added whole.
func (w *window) setLeaf(block int64, leaf blockdiff.Hash) {
	segment := block / blockdiff.BlocksPerSegment
	first, blocks := w.geometry.SegmentBlocks(segment)
	e := w.find(segment)
	if e.leaves == nil && leaf == w.prover.ZeroLeaf() {
		return
	}
	if e.count > 1 {
		w.split(segment)
		e = w.find(segment)
	}
	w.fill(e, int(blocks), int(block-first), []blockdiff.Hash{leaf})
}

// split makes a segment within a run of zeros an entry of its own.
func (w *window) split(segment int64) {
	i := slices.IndexFunc(w.entries, func(e entry) bool { return e.first+e.count > segment })
	whole := w.entries[i]
	var parts []entry
	for _, part := range [][2]int64{{whole.first, segment}, {segment, segment + 1}, {segment + 1, whole.first + whole.count}} {
		if part[0] < part[1] {
			_, blocks := w.geometry.SegmentBlocks(part[0])
			parts = append(parts, entry{first: part[0], count: part[1] - part[0], blocks: blocks})
		}
	}
	w.entries = slices.Replace(w.entries, i, i+1, parts...)
}

// wait counts a block's refinement in (1) or out (-1).
func (w *window) wait(block int64, change int) {
	if e := w.find(block / blockdiff.BlocksPerSegment); e != nil {
		e.waiting += change
	}
}

// take returns the proofs that became ready: of complete segments in order.
func (w *window) take() []ProofRun {
	var runs []ProofRun
	for e := w.find(w.sent); e != nil && w.complete(e); e = w.find(w.sent) {
		runs = appendProof(runs, w.proof(e))
		w.sent = e.first + e.count
	}
	return runs
}

// proof is an entry's hash, or none for a run of zeros.
func (w *window) proof(e *entry) ProofRun {
	run := ProofRun{First: e.first, Count: e.count}
	if e.leaves != nil {
		run.Hashes = []blockdiff.Hash{w.prover.Segment(e.leaves)}
	}
	return run
}

// appendProof joins runs of hashes that follow one another.
func appendProof(runs []ProofRun, next ProofRun) []ProofRun {
	n := len(runs)
	if n > 0 && runs[n-1].Hashes != nil && next.Hashes != nil && runs[n-1].First+runs[n-1].Count == next.First {
		runs[n-1].Count += next.Count
		runs[n-1].Hashes = append(runs[n-1].Hashes, next.Hashes...)
		return runs
	}
	return append(runs, next)
}

// prove drops the segments before through and extends the chain over them.
func (w *window) prove(through int64) error {
	if through < w.proven || through > w.sent {
		return protocol("the replica proved up to segment %d; %d to %d can be", through, w.proven, w.sent)
	}
	for w.proven < through {
		e := &w.entries[0]
		count := min(e.count, through-w.proven)
		if e.leaves == nil {
			w.chain = w.prover.ExtendZero(w.geometry, w.chain, w.proven, count)
		} else {
			w.chain = w.prover.Extend(w.chain, w.prover.Segment(e.leaves))
			w.content--
		}
		w.proven += count
		e.first += count
		if e.count -= count; e.count == 0 {
			w.entries = w.entries[1:]
		}
	}
	return nil
}

// full says that limit segments with content wait for their proof; a segment that was begun is not held up.
func (w *window) full(limit int) bool {
	return w.content >= limit && w.next%blockdiff.BlocksPerSegment == 0
}

// finished says that every block was added and every segment proven.
func (w *window) finished() bool { return w.proven == w.geometry.Segments() }
