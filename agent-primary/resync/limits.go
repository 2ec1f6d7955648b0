package resync

import (
	"runtime"
	"time"

	"vmreplica/blockdiff"
)

// Limits bound what one pass holds and how it paces itself.
type Limits struct {
	// DigestCreditBytes is the image whose digests may be ahead of the comparison, 1 byte or more.
	DigestCreditBytes int64
	// FrameBytes is about the plaintext of one frame, 1 to 4 MiB less a block.
	FrameBytes int
	// ReadBuffers is how many pieces of 1 MiB are read ahead and compared at a time, 2 or more.
	ReadBuffers int
	// Workers is how many goroutines hash, 1 or more; as many compress.
	Workers int
	// SegmentWindow is how many segments with content may wait for their proof, 1 or more.
	SegmentWindow int
	// FlushInterval is how long content waits for its frame to fill.
	FlushInterval time.Duration
	// CheckInterval is how often the source is asked whether it is still the one that the pass began with, and how
	// old the wire figures may be.
	CheckInterval time.Duration
}

// DefaultLimits are what an agent uses.
func DefaultLimits() Limits {
	workers := max(1, runtime.GOMAXPROCS(0)/2)
	return Limits{
		DigestCreditBytes: 256 << 20,
		FrameBytes:        1 << 20,
		ReadBuffers:       4 + 2*workers,
		Workers:           workers,
		SegmentWindow:     1024,
		FlushInterval:     100 * time.Millisecond,
		CheckInterval:     500 * time.Millisecond,
	}
}

// pieceBlocks is how many blocks are read at a time.
const pieceBlocks = (1 << 20) / blockdiff.BlockSize
