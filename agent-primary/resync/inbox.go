package resync

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
)

// inbox holds what the replica sent until it is used. Every channel is as large as the credits allow, so that the
// receiving goroutine never waits: what does not fit is a fault of the replica.
type inbox struct {
	runs chan blockdiff.Run
	// taken is the credit that all runs so far have used.
	taken       atomic.Int64
	refinements chan Refinements
	mismatches  chan Mismatch
	// acknowledged holds the newest acknowledgement only; finished the replica's last word.
	acknowledged chan Acknowledgement
	finished     chan blockdiff.Hash
}

const (
	maxRuns        = 8192
	maxRefinements = 4096
	maxMismatches  = 4096
)

func newInbox() inbox {
	return inbox{
		runs:         make(chan blockdiff.Run, maxRuns),
		refinements:  make(chan Refinements, maxRefinements),
		mismatches:   make(chan Mismatch, maxMismatches),
		acknowledged: make(chan Acknowledgement, 1),
		finished:     make(chan blockdiff.Hash, 1),
	}
}

// receive takes the replica's messages until it has finished.
func (p *pass) receive(ctx context.Context) error {
	next := p.geometry.FirstBlock(p.opened.Cursor.Segment)
	if next == p.geometry.Blocks() {
		close(p.inbox.runs)
	}
	for {
		response, err := p.stream.Recv()
		if err != nil {
			return p.lost(ctx, err)
		}
		switch message := response.(type) {
		case Digests:
			next, err = p.receiveRuns(next, message)
		case Refinements:
			err = offer(p.inbox.refinements, message)
		case Mismatch:
			err = offer(p.inbox.mismatches, message)
		case Acknowledgement:
			p.replaceAcknowledgement(message)
		case Finished:
			return offer(p.inbox.finished, message.Root)
		default:
			err = protocol("unknown message %T", response)
		}
		if err != nil {
			return err
		}
	}
}

// receiveRuns checks that the runs follow one another and hands them on.
func (p *pass) receiveRuns(next int64, message Digests) (int64, error) {
	for _, run := range message.Runs {
		if err := blockdiff.CheckRun(p.geometry, next, run); err != nil {
			return next, protocol("%w", err)
		}
		p.inbox.taken.Add(run.CreditBytes())
		if err := offer(p.inbox.runs, run); err != nil {
			return next, err
		}
		if next = run.First + run.Count; next == p.geometry.Blocks() {
			close(p.inbox.runs)
		}
	}
	return next, nil
}

// replaceAcknowledgement keeps the newest; only the receiving goroutine writes.
func (p *pass) replaceAcknowledgement(newest Acknowledgement) {
	for {
		select {
		case p.inbox.acknowledged <- newest:
			return
		case <-p.inbox.acknowledged:
		}
	}
}

// lost says why nothing more can be received.
func (p *pass) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if errors.Is(err, io.EOF) {
		return failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable,
			"the replica ended the stream before everything was proven")
	}
	return err
}

// offer hands value on without waiting.
func offer[T any](to chan<- T, value T) error {
	select {
	case to <- value:
		return nil
	default:
		return protocol("the replica sent more than it had credit for (%T)", value)
	}
}
