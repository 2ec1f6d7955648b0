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
type Progress struct{ sent, wire, rounds, dirty, present atomic.Int64 }

// Figures are a Progress at one moment.
type Figures struct {
	// SentBytes is content that the replica has acknowledged, before compression; WireBytes what crossed the wire.
	SentBytes, WireBytes int64
	// Rounds were begun, the cut included.
	Rounds int
	// DirtyBytes were to be sent when the present round was begun, and PresentBytes of it were.
	DirtyBytes, PresentBytes int64
}

// Figures reads the progress.
func (p *Progress) Figures() Figures {
	return Figures{
		SentBytes: p.sent.Load(), WireBytes: p.wire.Load(), Rounds: int(p.rounds.Load()),
		DirtyBytes: p.dirty.Load(), PresentBytes: p.present.Load(),
	}
}

// begin begins a round.
func (p *Progress) begin(dirty int64) {
	p.rounds.Add(1)
	p.dirty.Store(dirty)
	p.present.Store(0)
}

// reach counts content as acknowledged.
func (p *Progress) reach(bytes int64) {
	p.sent.Add(bytes)
	p.present.Add(bytes)
}
