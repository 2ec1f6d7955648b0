package receive

import (
	"runtime"
	"time"

	"vmreplica/blockdiff"
)

// Limits bound what one session holds and how often it saves its cursor.
type Limits struct {
	// RefineCreditBlocks and FrameCreditBytes are granted to the primary, 1 or more each.
	RefineCreditBlocks, FrameCreditBytes int64
	// ReadBuffers is how many pieces of 1 MiB are read ahead and hashed at a time, 2 or more.
	ReadBuffers int
	// Workers is how many goroutines hash, 1 or more.
	Workers int
	// OpenSegments is how many segments with content may be digested and not proven.
	OpenSegments int
	// CursorInterval is how long proven segments may wait to be durable.
	CursorInterval time.Duration
}

// DefaultLimits are what an agent uses.
func DefaultLimits() Limits {
	workers := max(1, runtime.GOMAXPROCS(0)/2)
	return Limits{
		RefineCreditBlocks: 1024,
		FrameCreditBytes:   8 << 20,
		ReadBuffers:        4 + 2*workers,
		Workers:            workers,
		OpenSegments:       2048,
		CursorInterval:     2 * time.Second,
	}
}

// hashBytes is the size of a hash on the wire.
const hashBytes = len(blockdiff.Hash{})

// maxDigestCreditBytes bounds the credit that a primary may grant.
const maxDigestCreditBytes = 1 << 30
