package resync

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/pipeline"
	"vmreplica/internal/replication"
)

// pass is one pass over one disk.
type pass struct {
	Options
	disk     Disk
	geometry blockdiff.Geometry
	prover   *blockdiff.Prover
	encoder  *blockdiff.Encoder
	stream   Stream
	opened   Opened

	// free holds the read buffers that nobody uses.
	free chan []byte
	// control goes out before ordered: refinements asked for and credit given back.
	control chan Request
	ordered chan outgoing
	inbox   inbox
	// counted is what of the stream's bytes the progress has.
	counted struct{ sent, received int64 }
}

// runPass opens a disk's stream and runs the pass on it.
func runPass(ctx context.Context, peer Peer, o Options, disk Disk, cursor Cursor) (DiskOutcome, error) {
	began := time.Now()
	geometry, err := blockdiff.NewGeometry(disk.Source.Size())
	if err != nil {
		return DiskOutcome{}, failure.New(failure.Invalid, failure.ReasonSizeMismatch, "%w", err)
	}
	prover, err := blockdiff.NewProver(o.Proof)
	if err != nil {
		return DiskOutcome{}, failure.New(failure.Unsupported, failure.ReasonUnsupported, "%w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, opened, err := peer.Open(ctx, Open{
		Transfer: o.Transfer, Disk: disk.ID, Session: cursor.Session + 1, Restart: disk.Restart,
		DigestCreditBytes: o.Limits.DigestCreditBytes,
	})
	if err != nil {
		return DiskOutcome{}, err
	}
	defer stream.Close()
	p := &pass{
		Options: o, disk: disk, geometry: geometry, prover: prover, encoder: blockdiff.NewEncoder(),
		stream: stream, opened: opened,
		free:    make(chan []byte, o.Limits.ReadBuffers),
		control: make(chan Request, 64),
		ordered: make(chan outgoing, 2*o.Limits.Workers),
		inbox:   newInbox(),
	}
	if err := p.checkOpened(); err != nil {
		return DiskOutcome{}, err
	}
	finished, root, err := p.run(ctx, cancel)
	if err != nil {
		return DiskOutcome{}, err
	}
	return DiskOutcome{
		ID: disk.ID, Root: root, ReplicaRoot: finished, Duration: time.Since(began), Session: cursor.Session + 1,
	}, nil
}

// checkOpened refuses a cursor outside the disk and credits that allow nothing.
func (p *pass) checkOpened() error {
	cursor := p.opened.Cursor
	if cursor.Segment < 0 || cursor.Segment > p.geometry.Segments() ||
		cursor.Segment == 0 && cursor.Chain != p.prover.Start(p.geometry) {
		return protocol("the replica's cursor %d is not one of this disk", cursor.Segment)
	}
	if p.opened.RefineCreditBlocks < 1 || p.opened.FrameCreditBytes < 1 {
		return protocol("the replica gave no credit")
	}
	return nil
}

// run starts the goroutines and waits for all of them. It answers the replica's root and the primary's.
func (p *pass) run(ctx context.Context, cancel context.CancelFunc) (finished, root blockdiff.Hash, err error) {
	if p.disk.Restart {
		p.disk.Progress.restart()
	}
	for range p.Limits.ReadBuffers {
		p.free <- make([]byte, pieceBlocks*blockdiff.BlockSize)
	}
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, cancel) // a failed goroutine ends the stream that others wait on
	defer stop()
	pieces := make(chan piece)
	settler := newSettler(p, pipeline.Ordered(ctx, p.Limits.Workers, pieces, p.compare))
	done := make(chan struct{})
	group.Go(func() error { return p.receive(ctx) })
	group.Go(func() error { defer close(pieces); return p.read(ctx, pieces) })
	group.Go(func() error { defer close(done); defer close(p.ordered); return settler.run(ctx) })
	group.Go(func() error { return p.send(ctx) })
	group.Go(func() error { return p.watch(ctx, done) })
	err = group.Wait()
	settler.release()
	p.countWire()
	return settler.finished, settler.window.chain, err
}

// watch looks whether the source is still the one that the pass began with, and keeps the wire figures fresh.
func (p *pass) watch(ctx context.Context, done <-chan struct{}) error {
	check := time.NewTicker(p.Limits.CheckInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return ended(ctx)
		case <-done:
			return p.disk.Source.Continuous(p.disk.Cut)
		case <-check.C:
			p.countWire()
			if err := p.disk.Source.Continuous(p.disk.Cut); err != nil {
				return err
			}
		}
	}
}

func (p *pass) countWire() {
	sent, received := p.stream.WireBytes()
	p.disk.Progress.wireSent.Add(sent - p.counted.sent)
	p.disk.Progress.wireReceived.Add(received - p.counted.received)
	p.counted.sent, p.counted.received = sent, received
}

// verifying says that nothing is to be shipped.
func (p *pass) verifying() bool { return p.Kind == replication.KindVerify }

// protocol is a failure of the replica to keep to the conversation.
func protocol(format string, args ...any) error {
	return failure.New(failure.Internal, failure.ReasonProtocol, format, args...).
		Try("The replica agent is faulty or of another version; look at its log.")
}

// ended turns the end of a context into what ended it.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return ctx.Err()
}
