package receive

import (
	"context"

	"vmreplica/blockdiff"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// proofs are the primary's segment hashes that were not compared yet, in order.
type proofs struct {
	runs []proofRun
	// next is the segment after the last one received.
	next int64
	// mismatched says that the first unproven segment did not match and is to be proven again.
	mismatched bool
}

// proofRun is count segments from first on; no hashes when they read as zeros.
type proofRun struct {
	first, count int64
	hashes       []blockdiff.Hash
}

// maxProofRuns bounds the runs that wait behind a mismatch.
const maxProofRuns = 4096

// queueProofs takes hashes that follow the last ones, or the one of the segment that did not match.
func (s *session) queueProofs(message *vmreplicav1.SegmentProofs) error {
	digested := s.segments.digestedSegments()
	for _, wire := range message.GetRuns() {
		run, err := parseProofRun(wire)
		if err != nil {
			return err
		}
		proven, _ := s.segments.position()
		switch {
		case s.proofs.mismatched && run.first == proven && run.count == 1:
			s.proofs.mismatched = false
			s.proofs.runs = append([]proofRun{run}, s.proofs.runs...)
			continue
		case run.first != s.proofs.next || run.count > digested-run.first:
			return protocol("a proof of segments %d to %d; %d to %d can be proven", run.first, run.first+run.count,
				s.proofs.next, digested)
		case len(s.proofs.runs) == maxProofRuns:
			return protocol("more than %d proofs wait", maxProofRuns)
		}
		s.proofs.next = run.first + run.count
		s.proofs.runs = append(s.proofs.runs, run)
	}
	return nil
}

func parseProofRun(wire *vmreplicav1.SegmentProofRun) (proofRun, error) {
	run := proofRun{first: wire.GetFirstSegment(), count: wire.GetCount()}
	packed := wire.GetHashes()
	hashes := len(packed) / hashBytes
	if run.first < 0 || run.count < 1 || len(packed) != hashes*hashBytes || hashes > 0 && int64(hashes) != run.count {
		return run, protocol("a proof of %d segments has %d bytes of hashes", run.count, len(packed))
	}
	for i := range hashes {
		run.hashes = append(run.hashes, blockdiff.Hash(packed[i*hashBytes:][:hashBytes]))
	}
	return run, nil
}

// proveQueued compares segment after segment until one does not match.
func (s *session) proveQueued(ctx context.Context) error {
	before, _ := s.segments.position()
	for len(s.proofs.runs) > 0 && !s.proofs.mismatched {
		run := &s.proofs.runs[0]
		if err := s.proveRun(ctx, run); err != nil {
			return err
		}
		if run.count == 0 {
			s.proofs.runs = s.proofs.runs[1:]
		}
	}
	after, _ := s.segments.position()
	if after > before {
		s.acknowledge(func(a *vmreplicav1.TransferAcknowledgement) { a.ProvenSegment = after })
	}
	return nil
}

// proveRun proves the beginning of a run; at a mismatch it takes that segment off the run and stops.
func (s *session) proveRun(ctx context.Context, run *proofRun) error {
	if run.hashes == nil {
		proven := s.segments.proveZeros(run.count)
		run.first += proven
		run.count -= proven
	}
	for run.count > 0 && !s.proofs.mismatched {
		segment := run.first
		theirs := s.prover.ZeroSegment(s.blocksOf(segment))
		if run.hashes != nil {
			theirs, run.hashes = run.hashes[0], run.hashes[1:]
		}
		run.first++
		run.count--
		leaves := s.segments.prove(theirs, s.verifying())
		if leaves == nil {
			continue
		}
		s.proofs.mismatched = !s.verifying()
		s.differs.Store(true)
		if err := s.answer(ctx, mismatchOf(segment, leaves)); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) blocksOf(segment int64) int64 {
	_, blocks := s.geometry.SegmentBlocks(segment)
	return blocks
}

func mismatchOf(segment int64, leaves []blockdiff.Hash) *vmreplicav1.TransferResponse {
	mismatch := &vmreplicav1.SegmentMismatch{Segment: segment, Leaves: make([]byte, 0, len(leaves)*hashBytes)}
	for _, leaf := range leaves {
		mismatch.Leaves = append(mismatch.Leaves, leaf[:]...)
	}
	return &vmreplicav1.TransferResponse{Message: &vmreplicav1.TransferResponse_Mismatch{Mismatch: mismatch}}
}
