package peer

import (
	"encoding/binary"

	"vmreplica/agent-primary/resync"
	"vmreplica/blockdiff"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// What a replica may answer at most, whatever the disk.
const (
	maxBlocks   = blockdiff.MaxDiskSize / blockdiff.BlockSize
	maxSegments = blockdiff.MaxDiskSize / blockdiff.SegmentSize
	maxRefine   = 1 << 20
	maxCredit   = 1 << 30
	hashSize    = len(blockdiff.Hash{})
)

var runKinds = map[vmreplicav1.DigestRun_Kind]blockdiff.RunKind{
	vmreplicav1.DigestRun_KIND_DIGESTS: blockdiff.RunDigests,
	vmreplicav1.DigestRun_KIND_ZERO:    blockdiff.RunZero,
	vmreplicav1.DigestRun_KIND_HOLE:    blockdiff.RunHole,
}

// responseFromProto is a message from a replica, with everything that does not depend on the disk checked.
func responseFromProto(answer *vmreplicav1.TransferResponse) (resync.Response, error) {
	switch message := answer.GetMessage().(type) {
	case *vmreplicav1.TransferResponse_Digests:
		return readDigests(message.Digests)
	case *vmreplicav1.TransferResponse_Refinements:
		return readRefinements(message.Refinements)
	case *vmreplicav1.TransferResponse_Mismatch:
		return readMismatch(message.Mismatch)
	case *vmreplicav1.TransferResponse_Acknowledgement:
		return readAcknowledgement(message.Acknowledgement)
	case *vmreplicav1.TransferResponse_Finished:
		root, err := readHash(message.Finished.GetRoot())
		return resync.Finished{Root: root}, err
	case *vmreplicav1.TransferResponse_Opened:
		return nil, violation("the opening of a stream twice")
	}
	return nil, violation("a message that this version does not know")
}

func readDigests(digests *vmreplicav1.Digests) (resync.Response, error) {
	runs := make([]blockdiff.Run, 0, len(digests.GetRuns()))
	for _, run := range digests.GetRuns() {
		kind, known := runKinds[run.GetKind()]
		first, count := run.GetFirstBlock(), run.GetCount()
		if !known || first < 0 || count < 1 || first > maxBlocks || count > maxBlocks-first {
			return nil, violation("a digest run of kind %d, %d blocks from %d", run.GetKind(), count, first)
		}
		values, err := blockdiff.UnpackDigests(run.GetDigests())
		if err != nil || kind == blockdiff.RunDigests && int64(len(values)) != count || kind != blockdiff.RunDigests && len(values) > 0 {
			return nil, violation("%d bytes of digests for %d blocks", len(run.GetDigests()), count)
		}
		runs = append(runs, blockdiff.Run{Kind: kind, First: first, Count: count, Digests: values})
	}
	return resync.Digests{Runs: runs}, nil
}

func readRefinements(refinements *vmreplicav1.Refinements) (resync.Response, error) {
	const each = blockdiff.SubBlocksPerBlock * 8
	blocks, packed := refinements.GetBlocks(), refinements.GetDigests()
	if len(packed) != each*len(blocks) {
		return nil, violation("%d bytes of sub-block digests for %d blocks", len(packed), len(blocks))
	}
	digests := make([][blockdiff.SubBlocksPerBlock]uint64, len(blocks))
	for i, block := range blocks {
		if block < 0 || block >= maxBlocks {
			return nil, violation("the sub-blocks of block %d", block)
		}
		for j := range digests[i] {
			digests[i][j] = binary.LittleEndian.Uint64(packed[i*each+j*8:])
		}
	}
	return resync.Refinements{Blocks: blocks, Digests: digests}, nil
}

func readMismatch(mismatch *vmreplicav1.SegmentMismatch) (resync.Response, error) {
	segment, packed := mismatch.GetSegment(), mismatch.GetLeaves()
	if segment < 0 || segment >= maxSegments || len(packed) == 0 || len(packed)%hashSize != 0 ||
		len(packed) > blockdiff.BlocksPerSegment*hashSize {
		return nil, violation("a mismatch of segment %d with %d bytes of leaves", segment, len(packed))
	}
	leaves := make([]blockdiff.Hash, len(packed)/hashSize)
	for i := range leaves {
		leaves[i] = blockdiff.Hash(packed[i*hashSize:])
	}
	return resync.Mismatch{Segment: segment, Leaves: leaves}, nil
}

func readAcknowledgement(a *vmreplicav1.TransferAcknowledgement) (resync.Response, error) {
	proven, durable := a.GetProvenSegment(), a.GetDurableSegment()
	if durable < 0 || durable > proven || proven > maxSegments {
		return nil, violation("%d segments proven and %d durable", proven, durable)
	}
	return resync.Acknowledgement{
		FrameSequence: a.GetFrameSequence(), ProvenSegment: proven, DurableSegment: durable,
	}, nil
}

func readHash(value []byte) (blockdiff.Hash, error) {
	if len(value) != hashSize {
		return blockdiff.Hash{}, violation("a hash of %d bytes", len(value))
	}
	return blockdiff.Hash(value), nil
}
