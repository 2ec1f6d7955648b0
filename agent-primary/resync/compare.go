package resync

import (
	"context"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

// piece is a range of blocks, with what the replica said of them. A mapped piece lies within one segment and has
// its content in buffer; one that the source has not mapped reads as zeros and may be of any length.
type piece struct {
	remote       blockdiff.RunKind
	first, count int64
	digests      []uint64
	buffer, data []byte
	// credit is given back when the piece is settled or waits for its refinement.
	credit int64
}

// compared is a piece after its comparison.
type compared struct {
	piece
	// leaves has one leaf for each block; nil when all of them read as zeros.
	leaves    []blockdiff.Hash
	differing []difference
}

// difference is a block, counted from the piece's first, that the replica does not hold.
type difference struct {
	index int64
	way   way
}

// way is how a differing block reaches the replica.
type way uint8

const (
	// refine asks for the sub-block digests first.
	refine way = iota
	// overZeros ships the sub-blocks that are not zero: the replica reads zeros there.
	overZeros
	// zero ships no content.
	zero
)

// read reads every run's blocks once, in order.
func (p *pass) read(ctx context.Context, pieces chan<- piece) error {
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case run, ok := <-p.inbox.runs:
			if !ok {
				return nil
			}
			if err := p.readRun(ctx, run, pieces); err != nil {
				return err
			}
		}
	}
}

func (p *pass) readRun(ctx context.Context, run blockdiff.Run, pieces chan<- piece) error {
	end := run.First + run.Count
	for span, err := range disk.Blocks(p.disk.Source, blockdiff.BlockSize, run.First, run.Count) {
		if err != nil {
			return unreadable(err)
		}
		for first := span.First; first < span.First+span.Count; {
			next := piece{remote: run.Kind, first: first, count: span.First + span.Count - first}
			if span.Mapped {
				next.count = min(next.count, pieceBlocks-first%pieceBlocks)
				if err := p.fill(ctx, &next); err != nil {
					return err
				}
			}
			if run.Kind == blockdiff.RunDigests {
				next.digests = run.Digests[first-run.First:][:next.count]
			}
			if first += next.count; first == end {
				next.credit = run.CreditBytes()
			}
			select {
			case pieces <- next:
			case <-ctx.Done():
				return ended(ctx)
			}
		}
	}
	return nil
}

// fill reads a piece into a free buffer.
func (p *pass) fill(ctx context.Context, into *piece) error {
	select {
	case into.buffer = <-p.free:
	case <-ctx.Done():
		return ended(ctx)
	}
	offset, _ := p.geometry.BlockRange(into.first)
	into.data = into.buffer[:min(into.count*blockdiff.BlockSize, p.geometry.Size()-offset)]
	if _, err := p.disk.Source.ReadAt(into.data, offset); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "cannot read the image: %w", err).
		Try("Check the disk below it (dmesg, smartctl); then start the resync again.")
}

// compare hashes a piece. It runs on several goroutines.
func (p *pass) compare(c piece) compared {
	result := compared{piece: c}
	if c.data == nil {
		return result
	}
	leaves := make([]blockdiff.Hash, c.count)
	content := false
	for i := range c.count {
		block := c.block(i)
		if blockdiff.IsZero(block) {
			leaves[i] = p.prover.ZeroLeaf()
			if c.remote == blockdiff.RunDigests {
				result.differing = append(result.differing, difference{i, zero})
			}
			continue
		}
		content = true
		leaves[i] = p.prover.Leaf(block)
		switch {
		case c.remote != blockdiff.RunDigests:
			result.differing = append(result.differing, difference{i, overZeros})
		case blockdiff.Digest(block) != c.digests[i]:
			result.differing = append(result.differing, difference{i, refine})
		}
	}
	if content {
		result.leaves = leaves
	}
	return result
}

// block is the content of the i-th block of a mapped piece.
func (c *piece) block(i int64) []byte {
	start := i * blockdiff.BlockSize
	return c.data[start:min(start+blockdiff.BlockSize, int64(len(c.data)))]
}
