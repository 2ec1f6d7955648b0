package ship

import (
	"runtime"
	"sync/atomic"
)

// Limits bound what the shipments of one VM hold.
type Limits struct {
	// FrameBytes is about the plaintext of one frame, 1 to 4 MiB less a block.
	FrameBytes int
	// Workers is how many frames of a disk are compressed at a time, 1 or more.
	Workers int
}

// DefaultLimits are what an agent uses.
func DefaultLimits() Limits {
	return Limits{FrameBytes: 1 << 20, Workers: max(1, runtime.GOMAXPROCS(0)/2)}
}

// Progress counts what is sent. It may be read at any time.
type Progress struct{ sent, wire, rounds, dirty atomic.Int64 }

// Figures are a Progress at one moment.
type Figures struct {
	// SentBytes is content that the replica has acknowledged, before compression; WireBytes what crossed the wire.
	SentBytes, WireBytes int64
	// Rounds were begun, the cut included, and DirtyBytes were to be sent when the present one was.
	Rounds     int
	DirtyBytes int64
}

// Figures reads the progress.
func (p *Progress) Figures() Figures {
	return Figures{
		SentBytes: p.sent.Load(), WireBytes: p.wire.Load(), Rounds: int(p.rounds.Load()), DirtyBytes: p.dirty.Load(),
	}
}
