package peer

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"vmreplica/agent-primary/resync"
	"vmreplica/internal/failure"
	"vmreplica/transport"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pacePart is how many bytes are waited for at a time, so that slow pacing is still seen as progress.
const pacePart = 32 << 10

// stream is one disk's conversation. One goroutine sends, one receives.
type stream struct {
	link     *Link
	disk     string
	ctx      context.Context // the stream's own, as long as it is open
	watchdog *transport.Watchdog
	wire     *transport.WireBytes
	calls    grpc.BidiStreamingClient[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]
	// ended is closed when the receiving direction has, and end says how.
	ended chan struct{}
	end   error
}

// errEnded is answered by send when the replica no longer reads.
var errEnded = errors.New("the replica ended the stream")

// Open opens one disk's stream on the data connection and waits for the replica's answer.
func (t *transfers) Open(ctx context.Context, open resync.Open) (resync.Stream, resync.Opened, error) {
	replica := t.replica
	client, err := replica.service(&replica.data)
	if err != nil {
		return nil, resync.Opened{}, t.located(err)
	}
	ctx, wire := transport.CountWire(ctx)
	ctx, watchdog := transport.NewWatchdog(ctx, replica.config.ProgressTimeout)
	s := &stream{link: t.Link, disk: open.Disk, ctx: ctx, watchdog: watchdog, wire: wire, ended: make(chan struct{})}
	if s.calls, err = client.Transfer(ctx); err != nil {
		err = s.failed(err)
		s.Close()
		return nil, resync.Opened{}, err
	}
	opened, err := s.open(open)
	if err != nil {
		s.Close()
		return nil, resync.Opened{}, err
	}
	return s, opened, nil
}

func (s *stream) open(open resync.Open) (resync.Opened, error) {
	request := &vmreplicav1.TransferRequest{Message: &vmreplicav1.TransferRequest_Open{Open: &vmreplicav1.TransferOpen{
		Relationship: s.link.relationship(), Transfer: string(open.Transfer), Disk: open.Disk,
		Session: open.Session, Restart: open.Restart, DigestCreditBytes: open.DigestCreditBytes,
	}}}
	if err := s.send(request, 0); err != nil && !errors.Is(err, errEnded) {
		return resync.Opened{}, err
	}
	answer, err := s.receive()
	if errors.Is(err, io.EOF) {
		err = s.located(violation("the opening of a stream with its end"))
	}
	if err != nil {
		return resync.Opened{}, err
	}
	opened, err := readOpened(answer.GetOpened(), open)
	return opened, s.located(err)
}

// Send paces and sends one message.
func (s *stream) Send(request resync.Request) error {
	converted, content, err := requestToProto(request)
	if err != nil {
		return s.located(err)
	}
	err = s.send(converted, content)
	if errors.Is(err, errEnded) {
		return s.whyEnded()
	}
	return err
}

// whyEnded waits for the receiver to learn how the stream ended.
func (s *stream) whyEnded() error {
	select {
	case <-s.ended:
	case <-s.ctx.Done():
		return s.failed(context.Cause(s.ctx))
	}
	if errors.Is(s.end, io.EOF) {
		return s.located(failure.New(failure.Conflict, failure.ReasonStaleSession, "%w", errEnded))
	}
	return s.end
}

// send sends a message with content bytes of payload. errEnded when the stream has ended: only the receiving
// direction knows how.
func (s *stream) send(request *vmreplicav1.TransferRequest, content int) error {
	if err := s.pace(content); err != nil {
		return s.failed(err)
	}
	err := s.calls.Send(request)
	if errors.Is(err, io.EOF) {
		return errEnded
	}
	if err != nil {
		return s.failed(err)
	}
	s.watchdog.Note(content + 1)
	return nil
}

func (s *stream) pace(content int) error {
	pacer := s.link.replica.config.Pacer
	if pacer == nil {
		return nil
	}
	for content > 0 {
		part := min(content, pacePart)
		if err := pacer.Wait(s.ctx, part); err != nil {
			return err
		}
		s.watchdog.Note(1)
		content -= part
	}
	return nil
}

// Recv waits for one message; io.EOF when the replica ended the stream.
func (s *stream) Recv() (resync.Response, error) {
	answer, err := s.receive()
	if err != nil {
		return nil, err
	}
	response, err := responseFromProto(answer)
	return response, s.located(err)
}

func (s *stream) receive() (*vmreplicav1.TransferResponse, error) {
	answer, err := s.calls.Recv()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			err = s.failed(err)
		}
		s.finish(err)
		return nil, err
	}
	s.link.replica.reached()
	s.watchdog.Note(1)
	return answer, nil
}

// finish notes how the stream ended; the receiving goroutine calls it.
func (s *stream) finish(err error) {
	select {
	case <-s.ended:
	default:
		s.end = err
		close(s.ended)
	}
}

// Close ends the stream.
func (s *stream) Close() { s.watchdog.Stop() }

// WireBytes is what has crossed the wire so far.
func (s *stream) WireBytes() (sent, received int64) { return s.wire.Sent(), s.wire.Received() }

// failed translates what a call on the stream answered.
func (s *stream) failed(err error) error { return s.located(s.link.replica.translate(s.ctx, err)) }

func (s *stream) located(err error) error { return failure.Locate(err, s.link.about.VM, s.disk) }
