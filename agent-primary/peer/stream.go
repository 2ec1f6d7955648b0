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

// conversation is a stream of one disk, in messages of the wire. One goroutine sends, one receives.
type conversation[Request, Response any] struct {
	link     *Link
	disk     string
	ctx      context.Context // the stream's own, as long as it is open
	watchdog *transport.Watchdog
	wire     *transport.WireBytes
	calls    grpc.BidiStreamingClient[Request, Response]
	// ended is closed when the receiving direction has, and end says how.
	ended chan struct{}
	end   error
}

// converse opens a stream on the data connection.
func converse[Request, Response any](ctx context.Context, link *Link, disk string,
	open func(context.Context, vmreplicav1.TransferServiceClient) (grpc.BidiStreamingClient[Request, Response], error),
) (*conversation[Request, Response], error) {
	replica := link.replica
	client, err := replica.service(&replica.data)
	if err != nil {
		return nil, link.located(err)
	}
	ctx, wire := transport.CountWire(ctx)
	ctx, watchdog := transport.NewWatchdog(ctx, replica.config.ProgressTimeout)
	c := &conversation[Request, Response]{
		link: link, disk: disk, ctx: ctx, watchdog: watchdog, wire: wire, ended: make(chan struct{}),
	}
	if c.calls, err = open(ctx, client); err != nil {
		err = c.failed(err)
		c.Close()
		return nil, err
	}
	return c, nil
}

// stream is the conversation of a pass.
type stream struct {
	*conversation[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]
}

// errEnded is answered by send when the replica no longer reads.
var errEnded = errors.New("the replica ended the stream")

// Open opens one disk's stream on the data connection and waits for the replica's answer.
func (t *transfers) Open(ctx context.Context, open resync.Open) (resync.Stream, resync.Opened, error) {
	c, err := converse(ctx, t.Link, open.Disk, func(ctx context.Context, client vmreplicav1.TransferServiceClient) (
		grpc.BidiStreamingClient[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse], error,
	) {
		return client.Transfer(ctx)
	})
	if err != nil {
		return nil, resync.Opened{}, err
	}
	s := &stream{c}
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
	return s.sendOrTell(converted, content)
}

// sendOrTell is send that says why the replica ended the stream.
func (s *conversation[Request, Response]) sendOrTell(request *Request, content int) error {
	err := s.send(request, content)
	if errors.Is(err, errEnded) {
		return s.whyEnded()
	}
	return err
}

// whyEnded waits for the receiver to learn how the stream ended.
func (s *conversation[Request, Response]) whyEnded() error {
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
func (s *conversation[Request, Response]) send(request *Request, content int) error {
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

func (s *conversation[Request, Response]) pace(content int) error {
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

func (s *conversation[Request, Response]) receive() (*Response, error) {
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
func (s *conversation[Request, Response]) finish(err error) {
	select {
	case <-s.ended:
	default:
		s.end = err
		close(s.ended)
	}
}

// Close ends the stream.
func (s *conversation[Request, Response]) Close() { s.watchdog.Stop() }

// WireBytes is what has crossed the wire so far.
func (s *conversation[Request, Response]) WireBytes() (sent, received int64) {
	return s.wire.Sent(), s.wire.Received()
}

// failed translates what a call on the stream answered.
func (s *conversation[Request, Response]) failed(err error) error {
	return s.located(s.link.replica.translate(s.ctx, err))
}

func (s *conversation[Request, Response]) located(err error) error {
	return failure.Locate(err, s.link.about.VM, s.disk)
}
