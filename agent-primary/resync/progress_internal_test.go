package resync

import (
	"testing"

	"vmreplica/blockdiff"
)

const perSegment = blockdiff.BlocksPerSegment

// TestWhatIsSentAgainCountsOnce interrupts a pass whose replica made one segment of three durable.
func TestWhatIsSentAgainCountsOnce(t *testing.T) {
	p := new(Progress)
	p.begin(0, 0)
	found := func(blocks ...int64) {
		for _, block := range blocks {
			p.differences.add(block, 1, 0)
			p.differences.add(block, 1, 4096)
		}
	}
	want := func(what string, blocks, durable, compared int64) {
		t.Helper()
		f := p.Figures()
		if f.BlocksDiffering != blocks || f.BytesDiffering != 4096*blocks || f.DurableBlocksDiffering != durable ||
			f.DurableBytesDiffering != 4096*durable || f.ComparedBytes != compared {
			t.Fatalf("%s: %+v, want %d blocks, %d of them durable, %d bytes compared", what, f, blocks, durable, compared)
		}
	}
	found(3, 3+perSegment, 4+perSegment, 5+2*perSegment)
	raise(&p.compared, 3*blockdiff.SegmentSize)
	p.reach(1, blockdiff.SegmentSize)
	p.wireSent.Add(1000)
	if f := p.Figures(); f.BlocksDiffering != 4 || f.DurableBlocksDiffering != 1 {
		t.Fatalf("%+v", f)
	}

	p.begin(1, blockdiff.SegmentSize) // the connection was lost
	want("after a cut", 1, 1, blockdiff.SegmentSize)
	found(3+perSegment, 4+perSegment, 5+2*perSegment)
	raise(&p.compared, 3*blockdiff.SegmentSize)
	p.wireSent.Add(1000)
	want("sent again", 4, 1, 3*blockdiff.SegmentSize)

	saved := p.Figures()
	p = new(Progress) // the primary was killed
	p.Restore(saved)
	want("as it was saved", 4, 1, 3*blockdiff.SegmentSize)
	p.begin(1, blockdiff.SegmentSize)
	found(3+perSegment, 4+perSegment, 5+2*perSegment)
	p.reach(3, 3*blockdiff.SegmentSize)
	want("to the end", 4, 4, blockdiff.SegmentSize)
	if f := p.Figures(); f.WireBytesSent != 2000 || f.DurableBytes != 3*blockdiff.SegmentSize {
		t.Fatalf("%+v", f)
	}

	p.restart()
	found(7)
	want("begun again at 0", 1, 0, 0)
}

func TestTheTalliesAreBounded(t *testing.T) {
	var d differences
	for segment := range int64(2 * maxOpenTallies) {
		d.add(segment*perSegment, 2, 2*blockdiff.BlockSize)
	}
	all, settled := d.sums()
	if len(d.open) > maxOpenTallies || all != (sum{4 * maxOpenTallies, 4 * maxOpenTallies * blockdiff.BlockSize}) ||
		settled.blocks != 2*maxOpenTallies {
		t.Fatalf("%d tallies, %+v, %+v", len(d.open), all, settled)
	}
}

// TestAKillForgetsNoDifferenceThatIsKnown kills a primary whose replica made more durable than was saved.
func TestAKillForgetsNoDifferenceThatIsKnown(t *testing.T) {
	before := new(Progress)
	before.begin(0, 0)
	for segment := range int64(3) {
		before.differences.add(segment*perSegment, 10, 10*blockdiff.BlockSize)
	}
	raise(&before.compared, 3*blockdiff.SegmentSize)
	before.reach(1, blockdiff.SegmentSize)
	saved := before.Figures()
	for cursor, want := range map[int64]int64{0: 0, 1: 10, 2: 10, 3: 30, 4: 30} {
		after := new(Progress)
		after.Restore(saved)
		after.begin(cursor, cursor*blockdiff.SegmentSize)
		if f := after.Figures(); f.BlocksDiffering != want || f.DurableBlocksDiffering != want || f.BytesDiffering != want*blockdiff.BlockSize {
			t.Errorf("cursor %d: %+v, want %d blocks", cursor, f, want)
		}
		after.differences.add(cursor*perSegment, 1, 0)
		after.begin(cursor, cursor*blockdiff.SegmentSize) // and a lost connection forgets what is found again
		if f := after.Figures(); f.BlocksDiffering != want {
			t.Errorf("cursor %d, begun again: %+v, want %d blocks", cursor, f, want)
		}
	}
}
