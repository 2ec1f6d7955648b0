package resync

import (
	"sync/atomic"

	"vmreplica/blockdiff"
)

// Progress is how far a disk has come, over all attempts of a resync. It is written by the pass and may be read
// at any time. What was compared and what differs belong to a position: a pass that goes on at the replica's cursor
// forgets what an earlier one found behind it, so that no block counts twice. What crossed the wire only rises.
//
// Figures are saved now and then, the cursor by the replica at its own pace: after a kill the differences between what
// was saved and the cursor are not known any more, so the count may be too low by what was found in between. It is
// never what says that two disks are equal: their roots do.
type Progress struct {
	compared, durable      atomic.Int64
	wireSent, wireReceived atomic.Int64
	segmentsResent         atomic.Int64
	differences            differences
}

// Figures are a Progress at one moment.
type Figures struct {
	// ComparedBytes is the position up to which everything was compared; DurableBytes the replica's cursor.
	ComparedBytes, DurableBytes int64
	// BlocksDiffering counts 64 KiB blocks, BytesDiffering the bytes shipped for them, before compression; a zeroed
	// range counts its length.
	BlocksDiffering, BytesDiffering int64
	// DurableBlocksDiffering and DurableBytesDiffering are the part of both before DurableBytes: what stays when the
	// resync is interrupted there.
	DurableBlocksDiffering, DurableBytesDiffering int64
	// WireBytesSent and WireBytesReceived sum all attempts, also what was lost and had to be sent again.
	WireBytesSent, WireBytesReceived int64
	// SegmentsResent counts proofs that did not hold at first.
	SegmentsResent int64
}

// Figures reads the progress.
func (p *Progress) Figures() Figures {
	all, settled := p.differences.sums()
	return Figures{
		ComparedBytes: p.compared.Load(), DurableBytes: p.durable.Load(),
		BlocksDiffering: all.blocks, BytesDiffering: all.bytes,
		DurableBlocksDiffering: settled.blocks, DurableBytesDiffering: settled.bytes,
		WireBytesSent: p.wireSent.Load(), WireBytesReceived: p.wireReceived.Load(),
		SegmentsResent: p.segmentsResent.Load(),
	}
}

// Restore sets the figures to those of an earlier run of the agent.
func (p *Progress) Restore(f Figures) {
	p.compared.Store(f.ComparedBytes)
	p.durable.Store(f.DurableBytes)
	p.differences.restore(sum{f.BlocksDiffering, f.BytesDiffering}, sum{f.DurableBlocksDiffering, f.DurableBytesDiffering},
		f.ComparedBytes)
	p.wireSent.Store(f.WireBytesSent)
	p.wireReceived.Store(f.WireBytesReceived)
	p.segmentsResent.Store(f.SegmentsResent)
}

// BlocksCompared is the number of blocks before ComparedBytes.
func (f Figures) BlocksCompared() int64 {
	return (f.ComparedBytes + blockdiff.BlockSize - 1) / blockdiff.BlockSize
}

// restart begins at 0.
func (p *Progress) restart() {
	p.durable.Store(0)
	p.begin(0, 0)
}

// begin takes position as what was compared, the start of segment: a pass goes on there.
func (p *Progress) begin(segment, position int64) {
	p.differences.begin(segment, position)
	p.compared.Store(position)
	raise(&p.durable, position)
}

// reach takes position as durable on the replica, the start of segment or the disk's end.
func (p *Progress) reach(segment, position int64) {
	p.differences.settle(segment)
	raise(&p.durable, position)
}

// raise sets a to value unless it is higher already; one goroutine writes a.
func raise(a *atomic.Int64, value int64) {
	if value > a.Load() {
		a.Store(value)
	}
}
