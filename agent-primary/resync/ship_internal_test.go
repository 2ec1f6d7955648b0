package resync

import (
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
)

// text is a source that holds one byte everywhere.
type text struct{ tracking.Source }

func (text) ReadAt(p []byte, _ int64) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// The replica expects the segment that did not match by itself; the next one, ready at the same moment, must not be
// joined with it.
func TestTheProofOfAResentSegmentStandsAlone(t *testing.T) {
	geometry, err := blockdiff.NewGeometry(2 * blockdiff.SegmentSize)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, blockdiff.BlockSize)
	_, _ = text{}.ReadAt(block, 0)
	leaves := make([]blockdiff.Hash, blockdiff.BlocksPerSegment)
	for i := range leaves {
		leaves[i] = prover.Leaf(block)
	}
	p := &pass{
		Options:  Options{Limits: DefaultLimits()},
		disk:     Disk{Source: text{}, Progress: new(Progress)},
		geometry: geometry, prover: prover,
		opened:  Opened{Cursor: Cursor{Chain: prover.Start(geometry)}, FrameCreditBytes: 8 << 20},
		ordered: make(chan outgoing, 8), inbox: newInbox(),
	}
	s := newSettler(p, nil)
	s.window.add(blockdiff.BlocksPerSegment, leaves)
	if err := s.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	theirs := append([]blockdiff.Hash(nil), leaves...)
	theirs[7] = prover.ZeroLeaf()
	if err := s.mismatched(t.Context(), Mismatch{Segment: 0, Leaves: theirs}); err != nil {
		t.Fatal(err)
	}
	s.window.add(blockdiff.BlocksPerSegment, leaves)
	if err := s.prove(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(p.ordered)
	var proven []int64
	for message := range p.ordered {
		proofs, is := message.request.(Proofs)
		if !is {
			continue
		}
		for _, run := range proofs.Runs {
			if run.Count != 1 || len(run.Hashes) != 1 {
				t.Errorf("a proof of %d segments from %d with %d hashes", run.Count, run.First, len(run.Hashes))
			}
			proven = append(proven, run.First)
		}
	}
	if len(proven) != 3 || proven[0] != 0 || proven[1] != 0 || proven[2] != 1 {
		t.Errorf("segments %v were proven, want 0, again 0, and 1", proven)
	}
}
