package resync

import (
	"context"
	"errors"
	"io"

	"vmreplica/blockdiff"
	"vmreplica/internal/pipeline"
)

// outgoing is a message of the ordered queue: a frame still to be coded, or a request as it is.
type outgoing struct {
	sequence uint64
	plain    *blockdiff.Plain
	request  Request
}

// encoded is an outgoing message that can be sent.
type encoded struct {
	request Request
	bytes   int
	err     error
}

// send sends one message after another until the finish was sent or ctx ends. What waits in control goes first.
func (p *pass) send(ctx context.Context) error {
	ordered := pipeline.Ordered(ctx, p.Limits.Workers, p.ordered, p.encode)
	for {
		select {
		case request := <-p.control:
			if done, err := p.sendOne(ctx, encoded{request: request}); done || err != nil {
				return err
			}
			continue
		default:
		}
		var next encoded
		var open bool
		select {
		case next.request = <-p.control:
		case next, open = <-ordered:
			if !open {
				return ended(ctx)
			}
		case <-ctx.Done():
			return ended(ctx)
		}
		if done, err := p.sendOne(ctx, next); done || err != nil {
			return err
		}
	}
}

// sendOne sends a message; done when none follows. A stream that the replica has ended tells why to the receiving
// goroutine only.
func (p *pass) sendOne(ctx context.Context, message encoded) (done bool, err error) {
	if message.err != nil {
		return false, message.err
	}
	if p.Pace != nil && message.bytes > 0 {
		if err := p.Pace(ctx, message.bytes); err != nil {
			return false, err
		}
	}
	if err := p.stream.Send(message.request); err != nil {
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		return false, err
	}
	_, done = message.request.(Finish)
	return done, nil
}

// encode codes a frame. It runs on several goroutines.
func (p *pass) encode(message outgoing) encoded {
	if message.plain == nil {
		return encoded{request: message.request}
	}
	defer message.plain.Release()
	frame, err := p.encoder.Encode(p.geometry, message.plain)
	if err != nil {
		return encoded{err: err}
	}
	return encoded{
		request: Frame{Sequence: message.sequence, Frame: frame},
		bytes:   len(frame.Payload) + len(frame.Extents),
	}
}
