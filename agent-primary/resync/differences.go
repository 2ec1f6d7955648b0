package resync

import (
	"sync"

	"vmreplica/blockdiff"
)

// maxOpenTallies bounds the segments whose differences are kept apart. Beyond it the lowest counts as settled before
// its time: it would count again if the pass went on before it.
const maxOpenTallies = 4096

// differences counts what differs, apart for each segment that is not durable.
type differences struct {
	mu sync.Mutex
	// settled is of the segments before the cursor, all of these and of the open ones.
	settled, all sum
	open         map[int64]*tally
	// restoredTo is the position up to which what was restored had been compared; what of it is not settled lies
	// before that, nobody knows where. -1 once a pass has begun.
	restoredTo int64
}

type sum struct{ blocks, bytes int64 }

// tally is what differs in one segment.
type tally struct {
	sum
	seen [blockdiff.BlocksPerSegment / 64]uint64
}

func (d *differences) sums() (all, settled sum) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all, d.settled
}

func (d *differences) restore(all, settled sum, compared int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all, d.settled, d.open, d.restoredTo = all, settled, nil, compared
}

// add counts blocks from first as differing, each once, and the bytes shipped for them.
func (d *differences) add(first, count, bytes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for block := first; block < first+count; block++ {
		t := d.tallyLocked(block / blockdiff.BlocksPerSegment)
		word, bit := block%blockdiff.BlocksPerSegment/64, uint64(1)<<(block%64)
		if t.seen[word]&bit == 0 {
			t.seen[word] |= bit
			t.blocks++
			d.all.blocks++
		}
		part := min(bytes, blockdiff.BlockSize)
		t.bytes += part
		d.all.bytes += part
		bytes -= part
	}
}

func (d *differences) tallyLocked(segment int64) *tally {
	if t := d.open[segment]; t != nil {
		return t
	}
	if d.open == nil {
		d.open = map[int64]*tally{}
	}
	if len(d.open) == maxOpenTallies {
		lowest := segment
		for other := range d.open {
			lowest = min(lowest, other)
		}
		d.settleLocked(lowest + 1)
	}
	d.open[segment] = new(tally)
	return d.open[segment]
}

// settle keeps what differs before a segment for good.
func (d *differences) settle(before int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settleLocked(before)
}

func (d *differences) settleLocked(before int64) {
	for segment, t := range d.open {
		if segment < before {
			d.settled.blocks += t.blocks
			d.settled.bytes += t.bytes
			delete(d.open, segment)
		}
	}
}

// begin forgets what differs from a segment on, the start of which is position. What was restored and lies before it
// stays; where that cannot be told it is forgotten, so that no block counts twice.
func (d *differences) begin(segment, position int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case segment == 0:
		d.settled, d.open = sum{}, nil
	case d.restoredTo >= 0 && position >= d.restoredTo:
		d.settled = d.all
	default:
		d.settleLocked(segment)
	}
	d.all, d.open, d.restoredTo = d.settled, nil, -1
}
