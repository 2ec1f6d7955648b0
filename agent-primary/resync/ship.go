package resync

import (
	"context"

	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
)

// shipWhole puts a block into the frame.
func (s *settler) shipWhole(ctx context.Context, block int64, data []byte) error {
	return s.shipSpans(ctx, block, data, []blockdiff.Span{{Offset: 0, Length: len(data)}})
}

// shipSpans puts parts of a block into the frame.
func (s *settler) shipSpans(ctx context.Context, block int64, data []byte, spans []blockdiff.Span) error {
	if err := s.makeRoom(ctx); err != nil {
		return err
	}
	offset, _ := s.geometry.BlockRange(block)
	for _, span := range spans {
		s.disk.Progress.differences.add(block, 1, int64(span.Length))
		part := data[span.Offset : span.Offset+span.Length]
		if err := s.builder.AddData(offset+int64(span.Offset), part); err != nil {
			return err
		}
	}
	return nil
}

// shipZero puts a block of zeros into the frame.
func (s *settler) shipZero(ctx context.Context, block, count int64) error {
	if err := s.makeRoom(ctx); err != nil {
		return err
	}
	offset, length := s.blockBytes(block, count)
	s.disk.Progress.differences.add(block, count, length)
	return s.builder.AddZero(offset, length)
}

// shipUnmapped puts a range that the source has not mapped into the frame.
func (s *settler) shipUnmapped(ctx context.Context, unmapped piece) error {
	if err := s.makeRoom(ctx); err != nil {
		return err
	}
	offset, length := s.blockBytes(unmapped.first, unmapped.count)
	s.disk.Progress.differences.add(unmapped.first, unmapped.count, length)
	return s.builder.AddUnmapped(offset, length)
}

// blockBytes is the range of count blocks.
func (s *settler) blockBytes(first, count int64) (offset, length int64) {
	offset, _ = s.geometry.BlockRange(first)
	return offset, min(count*blockdiff.BlockSize, s.geometry.Size()-offset)
}

// makeRoom sends the frame when it is full, so that another block fits.
func (s *settler) makeRoom(ctx context.Context) error {
	if !s.builder.Full() {
		return nil
	}
	return s.flush(ctx)
}

// flush sends the frame that is being filled, waiting for credit, and then the proofs that waited for it.
func (s *settler) flush(ctx context.Context) error {
	if !s.builder.Empty() {
		cost := max(int64(s.builder.Bytes()), blockdiff.BlockSize)
		for s.paid > 0 && s.paid+cost > s.opened.FrameCreditBytes {
			select {
			case acknowledgement := <-s.inbox.acknowledged:
				if err := s.acknowledge(acknowledgement); err != nil {
					return err
				}
			case <-ctx.Done():
				return ended(ctx)
			}
		}
		s.sequence++
		s.cost[s.sequence] = cost
		s.paid += cost
		if err := s.order(ctx, outgoing{sequence: s.sequence, plain: s.builder.Take()}); err != nil {
			return err
		}
	}
	proofs := Proofs{Runs: append(s.reproofs, s.proofs...)}
	if len(proofs.Runs) == 0 {
		return nil
	}
	s.proofs, s.reproofs = nil, nil
	return s.order(ctx, outgoing{request: proofs})
}

// maxHeldProofs is how many proofs wait for a frame to fill.
const maxHeldProofs = 64

// prove takes the proofs that became ready. They go at once when no content waits, else with the frame.
func (s *settler) prove(ctx context.Context) error {
	for _, run := range s.window.take() {
		s.proofs = appendProof(s.proofs, run)
	}
	held := len(s.reproofs)
	for _, run := range s.proofs {
		held += max(len(run.Hashes), 1)
	}
	if held > 0 && (s.builder.Empty() || held >= maxHeldProofs || s.window.next == s.geometry.Blocks()) {
		return s.flush(ctx)
	}
	return nil
}

// mismatched compares the leaves of a segment that the replica would hold differently. In a verify the blocks are
// counted; else they are read once more and sent whole, and the segment is proven again.
func (s *settler) mismatched(ctx context.Context, m Mismatch) error {
	first, count := s.geometry.SegmentBlocks(m.Segment)
	e := s.window.find(m.Segment)
	if e == nil || m.Segment >= s.window.sent || int64(len(m.Leaves)) != count {
		return protocol("a mismatch of segment %d, which was not to be proven", m.Segment)
	}
	s.disk.Progress.segmentsResent.Add(1)
	if s.resent[m.Segment]++; s.resent[m.Segment] > maxResends {
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"segment %d does not match though it was sent %d times", m.Segment, maxResends).
			Try("Test the memory and the disks of both hosts.")
	}
	differing := false
	for i, theirs := range m.Leaves {
		if theirs == s.leaf(e, int64(i)) {
			continue
		}
		differing = true
		block := first + int64(i)
		_, length := s.geometry.BlockRange(block)
		if s.verifying() {
			s.disk.Progress.differences.add(block, 1, length)
			continue
		}
		if err := s.resend(ctx, block); err != nil {
			return err
		}
	}
	if s.verifying() {
		return nil
	}
	if !differing {
		return protocol("segment %d is said to differ, but its leaves are equal", m.Segment)
	}
	s.reproofs = append(s.reproofs, s.again(m.Segment))
	return nil
}

// leaf is the leaf of an entry's i-th block.
func (s *settler) leaf(e *entry, i int64) blockdiff.Hash {
	if e.leaves == nil {
		return s.prover.ZeroLeaf()
	}
	return e.leaves[i]
}

// again is the proof of one segment that was taken before.
func (s *settler) again(segment int64) ProofRun {
	e := s.window.find(segment)
	if e.leaves == nil {
		return ProofRun{First: segment, Count: 1}
	}
	return s.window.proof(e)
}

// resend reads a block once more and ships it whole.
func (s *settler) resend(ctx context.Context, block int64) error {
	offset, length := s.geometry.BlockRange(block)
	data := make([]byte, length)
	if _, err := s.disk.Source.ReadAt(data, offset); err != nil {
		return unreadable(err)
	}
	s.window.setLeaf(block, s.prover.Leaf(data))
	return s.shipWhole(ctx, block, data)
}

// contentSpans are the parts of a block that are not zeros.
func contentSpans(block []byte) []blockdiff.Span {
	var zeros [blockdiff.SubBlocksPerBlock]uint64
	for i := range zeros {
		zeros[i] = zeroSubDigest
	}
	return blockdiff.Differing(block, &zeros)
}

var zeroSubDigest = blockdiff.SubDigests(nil)[0]
