package resync

import (
	"context"
	"time"

	"vmreplica/blockdiff"
)

// settler owns what is neither shipped nor proven: the window of open segments, the blocks that wait for their
// refinement, and the frame that is being filled. One goroutine runs it.
type settler struct {
	*pass
	results <-chan compared
	window  *window
	builder *blockdiff.Builder
	held    map[int64]*held

	// sequence and cost are of the frames under way; paid is the sum of cost.
	sequence uint64
	cost     map[uint64]int64
	acked    uint64
	paid     int64

	// proofs wait until the frame of their segments is taken. reproofs are those of segments that were sent again:
	// each stands alone, as the replica expects it.
	proofs, reproofs []ProofRun
	// credit is to be given back; settled is the credit of all runs that were.
	credit, settled int64
	resent          map[int64]int

	finished blockdiff.Hash
}

// maxResends is how often one segment is sent again before the pass gives up.
const maxResends = 3

func newSettler(p *pass, results <-chan compared) *settler {
	cursor := p.opened.Cursor.Segment
	p.disk.Progress.begin(cursor, min(cursor*blockdiff.SegmentSize, p.geometry.Size()))
	return &settler{
		pass: p, results: results,
		window:  newWindow(p.geometry, p.prover, p.opened.Cursor),
		builder: blockdiff.NewBuilder(p.geometry, p.Limits.FrameBytes),
		held:    map[int64]*held{}, cost: map[uint64]int64{}, resent: map[int64]int{},
	}
}

// run settles block after block until the replica has proven the disk.
func (s *settler) run(ctx context.Context) error {
	flush := time.NewTicker(s.Limits.FlushInterval)
	defer flush.Stop()
	for !s.window.finished() {
		results := s.results
		if s.window.full(s.Limits.SegmentWindow) {
			results = nil
		}
		var err error
		select {
		case <-ctx.Done():
			return ended(ctx)
		case result, open := <-results:
			if !open {
				s.results = nil
			} else {
				err = s.settle(ctx, result)
			}
		case refinements := <-s.inbox.refinements:
			err = s.refined(ctx, refinements)
		case mismatch := <-s.inbox.mismatches:
			err = s.mismatched(ctx, mismatch)
		case acknowledgement := <-s.inbox.acknowledged:
			err = s.follow(ctx, acknowledgement)
		case <-flush.C:
			err = s.flush(ctx)
		}
		if err == nil {
			err = s.prove(ctx)
		}
		if err != nil {
			return err
		}
	}
	return s.finish(ctx)
}

// settle takes a compared piece: its leaves into the window, its differences on their way.
func (s *settler) settle(ctx context.Context, c compared) error {
	if c.buffer != nil {
		defer func() { s.free <- c.buffer }()
	}
	s.window.add(c.count, c.leaves)
	if !s.verifying() {
		if err := s.ship(ctx, c); err != nil {
			return err
		}
	}
	raise(&s.disk.Progress.compared, min(s.window.next*blockdiff.BlockSize, s.geometry.Size()))
	return s.giveBack(ctx, c.credit)
}

// giveBack returns the credit of a settled run, a good part of the whole at a time. It keeps none back while
// nothing else is under way: the replica may wait for all of it before it sends the next message.
func (s *settler) giveBack(ctx context.Context, credit int64) error {
	s.credit += credit
	s.settled += credit
	few := s.credit < min(s.Limits.DigestCreditBytes/8, 16<<20)
	if s.credit == 0 || few && s.settled < s.inbox.taken.Load() {
		return nil
	}
	message := DigestCredit{Bytes: s.credit}
	s.credit = 0
	return s.push(ctx, message)
}

// ship sends a piece's differences on their ways.
func (s *settler) ship(ctx context.Context, c compared) error {
	if c.data == nil {
		if c.remote != blockdiff.RunDigests {
			return nil
		}
		return s.shipUnmapped(ctx, c.piece)
	}
	var ask Refine
	for _, d := range c.differing {
		block := c.first + d.index
		s.disk.Progress.differences.add(block, 1, 0)
		switch d.way {
		case zero:
			if err := s.shipZero(ctx, block, 1); err != nil {
				return err
			}
		case overZeros:
			if err := s.shipSpans(ctx, block, c.block(d.index), contentSpans(c.block(d.index))); err != nil {
				return err
			}
		case refine:
			if s.hold(block, c.block(d.index)) {
				ask.Blocks = append(ask.Blocks, block)
			} else if err := s.shipWhole(ctx, block, c.block(d.index)); err != nil {
				return err
			}
		}
	}
	if len(ask.Blocks) == 0 {
		return nil
	}
	return s.push(ctx, ask)
}

// hold keeps a block until its refinement; false when there is no credit or no budget for it.
func (s *settler) hold(block int64, data []byte) bool {
	if int64(len(s.held)) >= s.opened.RefineCreditBlocks {
		return false
	}
	h := s.Budget.hold(data)
	if h == nil {
		return false
	}
	s.held[block] = h
	s.window.wait(block, 1)
	return true
}

// refined ships the sub-blocks that differ. When none does although the block's digest did, the sub-block digests
// collide, and the block goes whole.
func (s *settler) refined(ctx context.Context, refinements Refinements) error {
	if len(refinements.Blocks) != len(refinements.Digests) {
		return protocol("%d refinements for %d blocks", len(refinements.Digests), len(refinements.Blocks))
	}
	for i, block := range refinements.Blocks {
		h := s.held[block]
		if h == nil {
			return protocol("a refinement of block %d, which was not asked for", block)
		}
		spans := blockdiff.Differing(h.data, &refinements.Digests[i])
		var err error
		if len(spans) == 0 {
			err = s.shipWhole(ctx, block, h.data)
		} else {
			err = s.shipSpans(ctx, block, h.data, spans)
		}
		delete(s.held, block)
		h.release()
		s.window.wait(block, -1)
		if err != nil {
			return err
		}
	}
	return nil
}

// follow takes the mismatches that came before an acknowledgement first: a verify's may be of segments that the
// acknowledgement drops.
func (s *settler) follow(ctx context.Context, a Acknowledgement) error {
	for {
		select {
		case mismatch := <-s.inbox.mismatches:
			if err := s.mismatched(ctx, mismatch); err != nil {
				return err
			}
		default:
			return s.acknowledge(a)
		}
	}
}

// acknowledge takes back the credit of frames and follows the replica's progress.
func (s *settler) acknowledge(a Acknowledgement) error {
	if a.FrameSequence > s.sequence || a.FrameSequence < s.acked {
		return protocol("frame %d acknowledged; %d to %d can be", a.FrameSequence, s.acked, s.sequence)
	}
	for s.acked < a.FrameSequence {
		s.acked++
		s.paid -= s.cost[s.acked]
		delete(s.cost, s.acked)
	}
	if a.DurableSegment > a.ProvenSegment {
		return protocol("segment %d durable, but only %d proven", a.DurableSegment, a.ProvenSegment)
	}
	if err := s.window.prove(a.ProvenSegment); err != nil {
		return err
	}
	s.disk.Progress.reach(a.DurableSegment, min(a.DurableSegment*blockdiff.SegmentSize, s.geometry.Size()))
	return nil
}

// finish exchanges the roots.
func (s *settler) finish(ctx context.Context) error {
	if err := s.order(ctx, outgoing{request: Finish{Root: s.window.chain}}); err != nil {
		return err
	}
	select {
	case s.finished = <-s.inbox.finished:
	case <-ctx.Done():
		return ended(ctx)
	}
	raise(&s.disk.Progress.compared, s.geometry.Size())
	if !s.verifying() {
		s.disk.Progress.reach(s.geometry.Segments(), s.geometry.Size())
	}
	if s.finished != s.window.chain && !s.verifying() {
		return protocol("the replica finished with another root")
	}
	return nil
}

// push puts a request before everything that is ordered.
func (s *settler) push(ctx context.Context, request Request) error {
	select {
	case s.control <- request:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

func (s *settler) order(ctx context.Context, message outgoing) error {
	select {
	case s.ordered <- message:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// release gives back what the pass still holds.
func (s *settler) release() {
	for _, h := range s.held {
		h.release()
	}
	s.builder.Take().Release()
}
