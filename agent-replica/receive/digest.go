package receive

import (
	"context"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/pipeline"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pieceBlocks is how many blocks are read at a time, batchBlocks how many digests go in a message.
const (
	pieceBlocks = (1 << 20) / blockdiff.BlockSize
	batchBlocks = 64
)

// piece is a range of blocks: read into buffer, or one that holds nothing.
type piece struct {
	first, count int64
	buffer, data []byte
}

// digested is a piece with its digests and leaves; no leaves when it holds nothing.
type digested struct {
	piece
	digests []uint64
	zero    []bool
	leaves  []blockdiff.Hash
}

// digest hashes pieces and sends what they hold.
func (s *session) digest(ctx context.Context, pieces <-chan piece) error {
	batch := &batch{session: s}
	for result := range pipeline.Ordered(ctx, s.limits.Workers, pieces, s.hash) {
		if err := s.digested(ctx, batch, result); err != nil {
			return err
		}
		if result.buffer != nil {
			s.free <- result.buffer
		}
	}
	if ctx.Err() != nil {
		return ended(ctx)
	}
	return batch.flush(ctx)
}

// digested records a piece's leaves, then sends its digests. What waits in the batch is sent before this waits for
// segments to be proven.
func (s *session) digested(ctx context.Context, batch *batch, d digested) error {
	if d.leaves != nil && s.segments.full() {
		if err := batch.flush(ctx); err != nil {
			return err
		}
	}
	if err := s.segments.digest(ctx, d.count, d.leaves); err != nil {
		return err
	}
	return batch.add(ctx, d)
}

// read reads every mapped block from the cursor on once, in order.
func (s *session) read(ctx context.Context, pieces chan<- piece) error {
	from := s.geometry.FirstBlock(s.cursor.Segment)
	if from == s.geometry.Blocks() {
		return nil
	}
	for span, err := range disk.Blocks(s.view, blockdiff.BlockSize, from, s.geometry.Blocks()-from) {
		if err != nil {
			return s.unreadable(err)
		}
		for first := span.First; first < span.First+span.Count; {
			next := piece{first: first, count: span.First + span.Count - first}
			if span.Mapped {
				next.count = min(next.count, pieceBlocks-first%pieceBlocks)
				if err := s.fill(ctx, &next); err != nil {
					return err
				}
			}
			select {
			case pieces <- next:
			case <-ctx.Done():
				return ended(ctx)
			}
			first += next.count
		}
	}
	return nil
}

func (s *session) fill(ctx context.Context, into *piece) error {
	select {
	case into.buffer = <-s.free:
	case <-ctx.Done():
		return ended(ctx)
	}
	offset, _ := s.geometry.BlockRange(into.first)
	into.data = into.buffer[:min(into.count*blockdiff.BlockSize, s.geometry.Size()-offset)]
	if _, err := s.view.ReadAt(into.data, offset); err != nil {
		return s.unreadable(err)
	}
	return nil
}

// hash runs on several goroutines.
func (s *session) hash(p piece) digested {
	result := digested{piece: p}
	if p.data == nil {
		return result
	}
	result.digests = make([]uint64, p.count)
	result.zero = make([]bool, p.count)
	result.leaves = make([]blockdiff.Hash, p.count)
	for i := range p.count {
		start := i * blockdiff.BlockSize
		block := p.data[start:min(start+blockdiff.BlockSize, int64(len(p.data)))]
		if result.zero[i] = blockdiff.IsZero(block); result.zero[i] {
			result.leaves[i] = s.prover.ZeroLeaf()
			continue
		}
		result.digests[i] = blockdiff.Digest(block)
		result.leaves[i] = s.prover.Leaf(block)
	}
	return result
}

// batch gathers runs for one message.
type batch struct {
	*session
	runs   []blockdiff.Run
	blocks int64
}

// add appends a piece's runs and sends the batch when it is large enough.
func (b *batch) add(ctx context.Context, d digested) error {
	if d.leaves == nil {
		b.append(blockdiff.Run{Kind: blockdiff.RunHole, First: d.first, Count: d.count})
		return b.flush(ctx)
	}
	for i, zero := range d.zero {
		run := blockdiff.Run{Kind: blockdiff.RunZero, First: d.first + int64(i), Count: 1}
		if !zero {
			run.Kind, run.Digests = blockdiff.RunDigests, d.digests[i:i+1]
		}
		b.append(run)
	}
	if b.blocks += d.count; b.blocks < min(batchBlocks, b.digests.limit/blockdiff.BlockSize) {
		return nil
	}
	return b.flush(ctx)
}

// append joins a run with the one before it where they are of one kind.
func (b *batch) append(run blockdiff.Run) {
	if n := len(b.runs); n > 0 && b.runs[n-1].Kind == run.Kind {
		b.runs[n-1].Count += run.Count
		b.runs[n-1].Digests = append(b.runs[n-1].Digests, run.Digests...)
		return
	}
	run.Digests = append([]uint64(nil), run.Digests...)
	b.runs = append(b.runs, run)
}

// flush waits for credit and hands the message to the sending goroutine.
func (b *batch) flush(ctx context.Context) error {
	if len(b.runs) == 0 {
		return nil
	}
	message := &vmreplicav1.Digests{}
	var cost int64
	for _, run := range b.runs {
		cost += run.CreditBytes()
		message.Runs = append(message.Runs, &vmreplicav1.DigestRun{
			Kind: vmreplicav1.DigestRun_Kind(run.Kind), FirstBlock: run.First, Count: run.Count,
			Digests: blockdiff.PackDigests(nil, run.Digests),
		})
	}
	b.runs, b.blocks = nil, 0
	if err := b.digests.take(ctx, cost); err != nil {
		return err
	}
	select {
	case b.bulk <- &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Digests{Digests: message}}:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}
