package resync

import (
	"sync/atomic"

	"vmreplica/blockdiff"
)

// Progress is how far a disk has come, over all attempts of a resync. It is written by the pass and may be read
// at any time; no figure falls, except Compared and Durable when a pass begins again at 0.
type Progress struct {
	compared, durable               atomic.Int64
	blocksDiffering, bytesDiffering atomic.Int64
	wireSent, wireReceived          atomic.Int64
	segmentsResent                  atomic.Int64
}

// Figures are a Progress at one moment.
type Figures struct {
	// ComparedBytes is the position up to which everything was compared; DurableBytes the replica's cursor.
	ComparedBytes, DurableBytes int64
	// BlocksDiffering counts 64 KiB blocks, BytesDiffering the bytes shipped for them, before compression; a zeroed
	// range counts its length.
	BlocksDiffering, BytesDiffering  int64
	WireBytesSent, WireBytesReceived int64
	// SegmentsResent counts proofs that did not hold at first.
	SegmentsResent int64
}

// Figures reads the progress.
func (p *Progress) Figures() Figures {
	return Figures{
		ComparedBytes: p.compared.Load(), DurableBytes: p.durable.Load(),
		BlocksDiffering: p.blocksDiffering.Load(), BytesDiffering: p.bytesDiffering.Load(),
		WireBytesSent: p.wireSent.Load(), WireBytesReceived: p.wireReceived.Load(),
		SegmentsResent: p.segmentsResent.Load(),
	}
}

// Restore sets the figures to those of an earlier run of the agent.
func (p *Progress) Restore(f Figures) {
	p.compared.Store(f.ComparedBytes)
	p.durable.Store(f.DurableBytes)
	p.blocksDiffering.Store(f.BlocksDiffering)
	p.bytesDiffering.Store(f.BytesDiffering)
	p.wireSent.Store(f.WireBytesSent)
	p.wireReceived.Store(f.WireBytesReceived)
	p.segmentsResent.Store(f.SegmentsResent)
}

// BlocksCompared is the number of blocks before ComparedBytes.
func (f Figures) BlocksCompared() int64 {
	return (f.ComparedBytes + blockdiff.BlockSize - 1) / blockdiff.BlockSize
}

func (p *Progress) restart() {
	p.compared.Store(0)
	p.durable.Store(0)
}

func (p *Progress) differing(blocks, bytes int64) {
	p.blocksDiffering.Add(blocks)
	p.bytesDiffering.Add(bytes)
}

// raise sets a to value unless it is higher already; one goroutine writes a.
func raise(a *atomic.Int64, value int64) {
	if value > a.Load() {
		a.Store(value)
	}
}
