package ship

import (
	"context"
	"errors"

	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/fault"
)

const (
	// readBytes is how much is read at a time.
	readBytes = 1 << 20
	// coveredBytes is how much of the disk one frame brings over at most: zeros cost no credit, and are to be
	// acknowledged in good time all the same.
	coveredBytes = 16 << 20
	// keptShare is the part of the copy-before-write budget, one in so many, that is kept before it is sent first.
	keptShare = 8
)

// plainFrame is a frame to be coded, with the ranges that it brings over whole.
type plainFrame struct {
	plain   *blockdiff.Plain
	ranges  []tracking.Range
	covered int64
}

// reader gathers what the epoch has of a disk into frames. It alone ships the disk's blocks, so that whatever is in the
// epoch and not under way can be read.
type reader struct {
	*shipment
	builder *blockdiff.Builder
	buffer  []byte
	// next is the frame that is being filled, but for what the builder holds.
	next   plainFrame
	frames chan<- plainFrame
}

func newReader(s *shipment, frames chan<- plainFrame) *reader {
	return &reader{shipment: s, builder: blockdiff.NewBuilder(s.geometry, s.Limits.FrameBytes), frames: frames}
}

// run hands out frames with everything that the epoch has of the disk. A cut that breaks ends it early: what was read
// until then is the disk's at the cut, and as good as of a round.
func (r *reader) run(ctx context.Context) error {
	defer func() { r.builder.Take().Release() }()
	err := r.readAll(ctx)
	if err != nil && !errors.Is(err, tracking.ErrBroken) {
		return err
	}
	return r.flush(ctx)
}

// readAll reads in order, but what copy-before-write keeps goes first whenever that is much: it sets the memory free
// that the cut would break without.
func (r *reader) readAll(ctx context.Context) error {
	if err := r.readKept(ctx); err != nil {
		return err
	}
	for extent, err := range r.epoch.Extents(r.index) {
		if err != nil {
			return err
		}
		if err := r.add(ctx, extent); err != nil {
			return err
		}
		if err := r.readKept(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readKept reads what is kept if that is much. Nothing is under way before and after, so that no block goes twice.
func (r *reader) readKept(ctx context.Context) error {
	if !r.muchKept() {
		return nil
	}
	if err := r.settled(ctx); err != nil {
		return err
	}
	for _, kept := range r.epoch.Kept(r.index) {
		if err := r.add(ctx, kept); err != nil {
			return err
		}
	}
	return r.settled(ctx)
}

func (r *reader) muchKept() bool {
	figures := r.Group.Figures()
	if figures.Kept == 0 || figures.Kept < figures.Budget/keptShare {
		return false
	}
	var kept int64
	for _, run := range r.epoch.Kept(r.index) {
		kept += run.Length
	}
	return kept >= min(int64(r.Limits.FrameBytes), figures.Budget/keptShare)
}

// settled hands out what was read and waits until the replica has it.
func (r *reader) settled(ctx context.Context) error {
	if err := r.flush(ctx); err != nil {
		return err
	}
	return r.window.settled(ctx)
}

// add reads a range and puts it into frames.
func (r *reader) add(ctx context.Context, whole tracking.Range) error {
	if r.buffer == nil {
		r.buffer = make([]byte, readBytes)
	}
	for off, end := whole.Offset, whole.Offset+whole.Length; off < end; {
		content := r.buffer[:min(readBytes, end-off)]
		if err := r.epoch.ReadAt(r.index, content, off); err != nil {
			return unreadable(err)
		}
		if err := r.gather(ctx, off, content); err != nil {
			return err
		}
		off += int64(len(content))
	}
	return nil
}

// unreadable tells an image that cannot be read from an epoch that cannot.
func unreadable(err error) error {
	if errors.Is(err, tracking.ErrBroken) || errors.Is(err, tracking.ErrNotInEpoch) {
		return err
	}
	return failure.New(failure.Precondition, failure.ReasonImageUnreadable, "cannot read the image: %w", err).
		Try("Check the disk below it (dmesg, smartctl).")
}

// gather puts content into frames block by block: another block fits into one that is not full.
func (r *reader) gather(ctx context.Context, off int64, content []byte) error {
	if fault.Enabled("drop-delta") {
		return r.epoch.Sent(r.index, off, int64(len(content)))
	}
	for len(content) > 0 {
		if r.builder.Full() || r.next.covered >= coveredBytes {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		block := content[:min(blockdiff.BlockSize, len(content))]
		if err := r.put(off, block); err != nil {
			return err
		}
		r.cover(tracking.Range{Offset: off, Length: int64(len(block))})
		off, content = off+int64(len(block)), content[len(block):]
	}
	return nil
}

// put adds a block, and its sub-blocks of zeros as no space at all.
func (r *reader) put(off int64, block []byte) error {
	for len(block) > 0 {
		part := block[:min(blockdiff.SubBlockSize, len(block))]
		var err error
		if blockdiff.IsZero(part) {
			err = r.builder.AddUnmapped(off, int64(len(part)))
		} else {
			err = r.builder.AddData(off, part)
		}
		if err != nil {
			return err
		}
		off, block = off+int64(len(part)), block[len(part):]
	}
	return nil
}

// cover notes what the frame brings over.
func (r *reader) cover(part tracking.Range) {
	r.next.covered += part.Length
	if last := len(r.next.ranges) - 1; last >= 0 {
		before := &r.next.ranges[last]
		if before.Offset+before.Length == part.Offset {
			before.Length += part.Length
			return
		}
	}
	r.next.ranges = append(r.next.ranges, part)
}

// flush hands out the frame that is being filled.
func (r *reader) flush(ctx context.Context) error {
	if r.builder.Empty() {
		return nil
	}
	frame := r.next
	frame.plain, r.next = r.builder.Take(), plainFrame{}
	r.window.read()
	select {
	case r.frames <- frame:
		return nil
	case <-ctx.Done():
		frame.plain.Release()
		return ended(ctx)
	}
}
