package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// deed is what becomes of a message on its way.
type deed uint8

const (
	deliver deed = iota
	// lose keeps the message from the replica, which acknowledges it all the same.
	lose
	// turn lets the next message go first.
	turn
	// corrupt changes a byte of the content, with a digest that fits.
	corrupt
	// cutOff ends the connection before the message arrives, cutAfter after the replica has done what it says.
	cutOff
	cutAfter
)

// replica is the other side in memory. It is the worst that may be: when a stream ends before its shipment is finished,
// everything that was not durable is gone.
type replica struct {
	t       testing.TB
	prover  *blockdiff.Prover
	decoder *blockdiff.Decoder
	credit  int64
	// way is asked for each frame and finish; nil delivers everything. Sequence is 0 for the finish.
	way func(open ship.Open, sequence uint64) deed
	// more is what the replica says beside, after it got a message; nil for nothing.
	more func(open ship.Open, sequence uint64) ship.Response

	mu    sync.Mutex
	disks map[string]*copied
	opens []ship.Open
	// most is the plaintext that was under way on a stream at most, in bytes.
	most int64
}

// copied is one disk of the replica. committed is what a failover would use.
type copied struct {
	geometry                   blockdiff.Geometry
	committed, durable, layer  []byte
	session                    uint64
	shipment                   replication.ID
	root                       blockdiff.Hash
	order                      []blockdiff.Extent
	dataBytes, unmapped, frame int64
}

func newReplica(t testing.TB, credit int64, sizes map[string]int64) *replica {
	t.Helper()
	prover, err := blockdiff.NewProver(blockdiff.BLAKE3)
	must(t, err)
	r := &replica{t: t, prover: prover, decoder: blockdiff.NewDecoder(), credit: credit, disks: map[string]*copied{}}
	for id, size := range sizes {
		geometry, err := blockdiff.NewGeometry(size)
		must(t, err)
		r.disks[id] = &copied{
			geometry: geometry, committed: make([]byte, size), durable: make([]byte, size), layer: make([]byte, size),
		}
	}
	return r
}

// commit commits what a cut has brought, as the record of a real one would allow it.
func (r *replica) commit(cut replication.ID, outcome ship.Outcome) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(outcome.Disks) != len(r.disks) {
		r.t.Fatalf("%d disks of %d were shipped", len(outcome.Disks), len(r.disks))
	}
	for _, d := range outcome.Disks {
		c := r.disks[d.ID]
		if c.shipment != cut || c.root != d.Root {
			r.t.Fatalf("disk %s finished shipment %s with root %s, the cut is %s with root %s", d.ID, c.shipment, c.root, cut, d.Root)
		}
		c.committed = bytes.Clone(c.durable)
	}
}

// discard discards what is not committed.
func (r *replica) discard() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.disks {
		c.durable, c.layer, c.shipment = bytes.Clone(c.committed), bytes.Clone(c.committed), ""
	}
}

// Ship implements Peer.
func (r *replica) Ship(ctx context.Context, open ship.Open) (ship.Stream, ship.Opened, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.disks[open.Disk]
	if open.Session <= c.session {
		return nil, ship.Opened{}, failure.New(failure.Conflict, failure.ReasonStaleSession, "session %d after %d", open.Session, c.session)
	}
	c.session, c.shipment, c.frame = open.Session, "", 0
	r.opens = append(r.opens, open)
	s := &stream{
		replica: r, copied: c, open: open, inbound: make(chan ship.Request, 1024), outbound: make(chan ship.Response, 1024),
		root: r.prover.StartShipment(c.geometry), failed: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.running.Go(s.serve)
	return s, ship.Opened{FrameCreditBytes: r.credit}, nil
}

// stream is one shipment's conversation.
type stream struct {
	*replica
	*copied
	open              ship.Open
	ctx               context.Context
	cancel            context.CancelFunc
	running           sync.WaitGroup
	inbound           chan ship.Request
	outbound          chan ship.Response
	underWay, frames  int64
	covered, wireSent int64
	root              blockdiff.Hash
	held              *resync.Frame
	done              bool
	// failed is closed when the stream has, and err says why.
	failed chan struct{}
	err    error
}

// Send implements Stream.
func (s *stream) Send(request ship.Request) error {
	if frame, is := request.(resync.Frame); is {
		frame.Frame.Payload = bytes.Clone(frame.Frame.Payload) // the buffer is used again
		request = frame
		s.mu.Lock()
		s.underWay += frame.Frame.CreditBytes()
		s.frames++
		s.wireSent += int64(len(frame.Frame.Payload) + len(frame.Frame.Extents))
		if s.underWay > s.credit && s.frames > 1 {
			s.t.Errorf("%d bytes in %d frames are under way, the credit is %d", s.underWay, s.frames, s.credit)
		}
		s.most = max(s.most, s.underWay)
		s.mu.Unlock()
	}
	select {
	case <-s.failed:
		return s.err
	case <-s.ctx.Done():
		return s.ctx.Err()
	case s.inbound <- request:
		return nil
	}
}

// Recv implements Stream.
func (s *stream) Recv() (ship.Response, error) {
	select {
	case response := <-s.outbound:
		return response, nil
	default:
	}
	select {
	case response := <-s.outbound:
		return response, nil
	case <-s.failed:
		return nil, s.err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// Close implements Stream.
func (s *stream) Close() {
	s.cancel()
	s.running.Wait()
}

// WireBytes implements Stream.
func (s *stream) WireBytes() (sent, received int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wireSent, 0
}

// serve takes messages until the shipment is finished.
func (s *stream) serve() {
	err := s.take()
	s.mu.Lock()
	if !s.done {
		s.layer = bytes.Clone(s.durable)
	}
	s.mu.Unlock()
	s.err = err
	close(s.failed)
}

var errCutOff = failure.New(failure.Unreachable, failure.ReasonReplicaUnreachable, "the connection is gone")

func (s *stream) take() error {
	for {
		var request ship.Request
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case request = <-s.inbound:
		}
		finish, is := request.(ship.Finish)
		if is {
			return s.finish(finish)
		}
		if err := s.frameArrives(request.(resync.Frame)); err != nil {
			return err
		}
	}
}

func (s *stream) deed(sequence uint64) deed {
	if s.way == nil {
		return deliver
	}
	return s.way(s.open, sequence)
}

// say sends what the replica says beside.
func (s *stream) say(sequence uint64) {
	if s.more == nil {
		return
	}
	if response := s.more(s.open, sequence); response != nil {
		s.outbound <- response
	}
}

func (s *stream) frameArrives(frame resync.Frame) error {
	what := s.deed(frame.Sequence)
	s.say(frame.Sequence)
	switch what {
	case cutOff:
		return errCutOff
	case turn:
		s.held = &frame
		return s.acknowledge(frame)
	case corrupt:
		frame.Frame = s.corrupted(frame.Frame)
	case lose:
		return s.acknowledge(frame)
	}
	if err := s.apply(frame.Frame); err != nil {
		return err
	}
	if s.held != nil {
		held := s.held.Frame
		s.held = nil
		if err := s.apply(held); err != nil {
			return err
		}
	}
	if what == cutAfter {
		return errCutOff
	}
	return s.acknowledge(frame)
}

// corrupted is a frame of the same extents with other content.
func (s *stream) corrupted(frame blockdiff.Frame) blockdiff.Frame {
	builder := blockdiff.NewBuilder(s.geometry, blockdiff.MaxFramePlaintext)
	must(s.t, s.decoder.Decode(s.geometry, frame, func(e blockdiff.Extent, data []byte) error {
		switch e.Kind {
		case blockdiff.ExtentData:
			changed := bytes.Clone(data)
			changed[len(changed)/2] ^= 1
			return builder.AddData(e.Offset, changed)
		case blockdiff.ExtentZero:
			return builder.AddZero(e.Offset, e.Length)
		default:
			return builder.AddUnmapped(e.Offset, e.Length)
		}
	}))
	changed, err := blockdiff.NewEncoder().Encode(s.geometry, builder.Take())
	must(s.t, err)
	return changed
}

func (s *stream) apply(frame blockdiff.Frame) error {
	hash := s.prover.NewFrameHash(frame.Extents)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.decoder.Decode(s.geometry, frame, func(e blockdiff.Extent, data []byte) error {
		hash.Add(data)
		s.covered += e.Length
		s.order = append(s.order, e)
		if e.Kind == blockdiff.ExtentData {
			s.dataBytes += e.Length
		} else {
			s.unmapped += e.Length
			clear(s.layer[e.Offset:e.End()])
		}
		copy(s.layer[e.Offset:], data)
		return nil
	})
	s.copied.frame++
	s.root = s.prover.Extend(s.root, hash.Sum())
	return err
}

func (s *stream) acknowledge(frame resync.Frame) error {
	s.mu.Lock()
	s.underWay -= frame.Frame.CreditBytes()
	s.frames--
	s.mu.Unlock()
	s.outbound <- ship.Acknowledgement{FrameSequence: frame.Sequence}
	return nil
}

func (s *stream) finish(finish ship.Finish) error {
	what := s.deed(0)
	if what == cutOff {
		return errCutOff
	}
	if finish.Root != s.root {
		return failure.New(failure.Corrupt, failure.ReasonProofFailed, "root %s over %d bytes", s.root, s.covered)
	}
	if finish.CoveredBytes != s.covered || finish.Frames != uint64(s.copied.frame) {
		s.t.Errorf("%d frames over %d bytes arrived, declared are %d over %d", s.copied.frame, s.covered, finish.Frames, finish.CoveredBytes)
	}
	s.mu.Lock()
	s.durable, s.done = bytes.Clone(s.layer), true
	s.shipment, s.copied.root = s.open.Shipment, s.root
	s.mu.Unlock()
	if what == cutAfter {
		return errCutOff
	}
	s.say(0)
	s.outbound <- ship.Finished{Root: s.root}
	return io.EOF
}

// sent is the content that all disks were sent, in bytes.
func (r *replica) sent() (bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.disks {
		bytes += c.dataBytes
	}
	return bytes
}

// differs says where a disk's committed content is not want; -1 nowhere.
func (r *replica) differs(id string, want []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at := range want {
		if r.disks[id].committed[at] != want[at] {
			return at
		}
	}
	return -1
}

func frameOf(sequence uint64, frame blockdiff.Frame) ship.Request {
	return resync.Frame{Sequence: sequence, Frame: frame}
}

// received takes answers until there are no more, and answers why.
func received(stream ship.Stream) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// reasonIs fails the test unless err is a failure with that reason.
func reasonIs(t testing.TB, err error, reason string) {
	t.Helper()
	if err == nil || failure.Find(err).Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(errors.Join(err, fmt.Errorf("unexpected")))
	}
}
