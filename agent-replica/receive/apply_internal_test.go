package receive

import (
	"testing"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// overtaken is a target that is flushed while each write is under way, before anything of it is there.
type overtaken struct {
	disk.Disk
	flush func() error
}

func (o overtaken) WriteAt(p []byte, _ int64) (int, error) { return len(p), o.flush() }

func (o overtaken) Flush() error { return nil }

// A flush that a write overtakes does not count for that write: the next cursor needs another.
func TestAWriteBesideAFlushIsNotFlushed(t *testing.T) {
	geometry, err := blockdiff.NewGeometry(blockdiff.SegmentSize)
	if err != nil {
		t.Fatal(err)
	}
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{
		part: &part{
			kind: replication.KindResync, geometry: geometry, prover: prover, decoder: blockdiff.NewDecoder(),
		},
		segments: newSegments(geometry, prover, 1, 0, blockdiff.Hash{}),
	}
	s.target = overtaken{flush: s.flush}
	if err := s.segments.digest(t.Context(), geometry.Blocks(), nil); err != nil {
		t.Fatal(err)
	}
	builder := blockdiff.NewBuilder(geometry, 1<<20)
	content := make([]byte, blockdiff.BlockSize)
	content[0] = 1
	if err := builder.AddData(0, content); err != nil {
		t.Fatal(err)
	}
	frame, err := blockdiff.NewEncoder().Encode(geometry, builder.Take())
	if err != nil {
		t.Fatal(err)
	}
	err = s.applyFrame(&vmreplicav1.Frame{Sequence: 1, Extents: frame.Extents, Codec: vmreplicav1.Codec(frame.Codec),
		PlaintextBytes: frame.PlaintextBytes, PlaintextDigest: frame.PlaintextDigest, Payload: frame.Payload})
	if err != nil {
		t.Fatal(err)
	}
	if !s.written.Load() {
		t.Fatal("what was written after the flush began counts as flushed")
	}
}
