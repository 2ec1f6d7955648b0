package ship

import (
	"context"

	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/fault"
)

// readBytes is how much is read at a time.
const readBytes = 1 << 20

// reader gathers what the epoch has of a disk into frames.
type reader struct {
	*shipment
	builder *blockdiff.Builder
	buffer  []byte
	// ranges are what the frame that is being filled brings over.
	ranges []tracking.Range
	frames chan<- plainFrame
}

// read hands out frames with everything that the epoch has of the disk: what copy-before-write keeps first, which sets
// its memory free, and then the rest in order.
func (s *shipment) read(ctx context.Context, frames chan<- plainFrame) error {
	r := &reader{
		shipment: s, builder: blockdiff.NewBuilder(s.geometry, s.Limits.FrameBytes), buffer: make([]byte, readBytes), frames: frames,
	}
	defer func() { r.builder.Take().Release() }()
	for _, kept := range s.epoch.Kept(s.index) {
		if err := r.add(ctx, kept); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	for extent, err := range s.epoch.Extents(s.index) {
		if err != nil {
			return err
		}
		if err := r.add(ctx, extent); err != nil {
			return err
		}
	}
	return r.flush(ctx)
}

// settled waits until nothing is under way: what was kept is sent then, and is not met again among the rest.
func (s *shipment) settled(ctx context.Context) error {
	for {
		s.mu.Lock()
		quiet := s.paid == 0 && s.reading == 0
		s.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-s.quiet:
		case <-ctx.Done():
			return ended(ctx)
		}
	}
}

// add reads a range and puts it into frames.
func (r *reader) add(ctx context.Context, whole tracking.Range) error {
	for off, end := whole.Offset, whole.Offset+whole.Length; off < end; {
		part := tracking.Range{Offset: off, Length: min(readBytes, end-off)}
		off += part.Length
		content := r.buffer[:part.Length]
		if err := r.epoch.ReadAt(r.index, content, part.Offset); err != nil {
			return err
		}
		if fault.Enabled("drop-delta") {
			if err := r.epoch.Sent(r.index, part.Offset, part.Length); err != nil {
				return err
			}
			continue
		}
		r.ranges = append(r.ranges, part)
		if err := r.put(part.Offset, content); err != nil {
			return err
		}
		if r.builder.Full() {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// put adds content, and sub-blocks of zeros as no space at all.
func (r *reader) put(off int64, content []byte) error {
	for at := 0; at < len(content); {
		zero := blockdiff.IsZero(content[at:min(at+blockdiff.SubBlockSize, len(content))])
		end := at
		for end < len(content) && blockdiff.IsZero(content[end:min(end+blockdiff.SubBlockSize, len(content))]) == zero {
			end = min(end+blockdiff.SubBlockSize, len(content))
		}
		add := func() error { return r.builder.AddData(off+int64(at), content[at:end]) }
		if zero {
			add = func() error { return r.builder.AddUnmapped(off+int64(at), int64(end-at)) }
		}
		if err := add(); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// flush hands out the frame that is being filled.
func (r *reader) flush(ctx context.Context) error {
	if r.builder.Empty() {
		return nil
	}
	frame := plainFrame{plain: r.builder.Take(), ranges: r.ranges}
	r.ranges = nil
	r.mu.Lock()
	r.reading++
	r.mu.Unlock()
	select {
	case r.frames <- frame:
		return nil
	case <-ctx.Done():
		frame.plain.Release()
		return ended(ctx)
	}
}
