package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// pair is a server and a client of it.
func pair(t testing.TB, config transport.ServerConfig, service *transferServer) *grpc.ClientConn {
	t.Helper()
	ours := newPKI(t, "")
	config.Credentials = ours.load(transport.RoleReplica, "r")
	address := serve(t, config, service)
	return dial(t, address, transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p"),
		Want: transport.RoleReplica})
}

func TestAMessageOverTheLimitIsRefusedAndTheConnectionStays(t *testing.T) {
	client := pair(t, transport.ServerConfig{}, &transferServer{transfer: digestFrames})
	overhead := transport.MaxMessageSize - payloadThatFills(t)
	for sentence, c := range map[string]struct {
		size int
		code codes.Code
	}{
		"at the limit":  {transport.MaxMessageSize - overhead, codes.OK},
		"one byte over": {transport.MaxMessageSize - overhead + 1, codes.ResourceExhausted},
	} {
		if _, err := exchange(t, openStream(t, client), make([]byte, c.size)); status.Code(err) != c.code {
			t.Errorf("%s: %v", sentence, err)
		}
		if err := hello(t, client); err != nil {
			t.Errorf("%s, afterwards: %v", sentence, err)
		}
	}
}

// payloadThatFills is the payload whose frame message is exactly MaxMessageSize.
func payloadThatFills(t testing.TB) int {
	t.Helper()
	for size := transport.MaxMessageSize; size > 0; size-- {
		inner := protowire.SizeTag(6) + protowire.SizeBytes(size)
		if protowire.SizeTag(4)+protowire.SizeBytes(inner) == transport.MaxMessageSize {
			return size
		}
	}
	t.Fatal("no payload fills a message")
	return 0
}

func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	client := pair(t, transport.ServerConfig{MaxStreams: 2}, &transferServer{transfer: digestFrames})
	for range 2 {
		if _, err := exchange(t, openStream(t, client), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := vmreplicav1.NewTransferServiceClient(client).Hello(ctx, &vmreplicav1.HelloRequest{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a third call beside two streams: %v", err)
	}
}

func TestAPanicIsInternalAndItsStackStaysHere(t *testing.T) {
	var log logBuffer
	service := &transferServer{
		hello: func(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
			panic("the secret of hello")
		},
		transfer: func(transferStream) error { panic("the secret of transfer") },
	}
	client := pair(t, transport.ServerConfig{Log: log.logger()}, service)
	_, streamErr := exchange(t, openStream(t, client), nil)
	for _, err := range []error{hello(t, client), streamErr} {
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("the caller sees %v", err)
		}
	}
	for _, want := range []string{"the secret of hello", "the secret of transfer", "serve_test.go", "/vmreplica/primary/p"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
}

var errDomain = errors.New("of the domain")

func TestHandlerErrorsAreTranslated(t *testing.T) {
	translate := func(err error) error {
		if errors.Is(err, errDomain) {
			return status.Error(codes.FailedPrecondition, "translated")
		}
		return status.Error(codes.Internal, err.Error())
	}
	for sentence, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"an error of the domain":              {errDomain, codes.FailedPrecondition},
		"a fault":                             {errors.New("fault"), codes.Internal},
		"a cancelled context":                 {fmt.Errorf("read: %w", context.Canceled), codes.Canceled},
		"a deadline":                          {fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"a deadline that the domain explains": {fmt.Errorf("%w: %w", errDomain, context.DeadlineExceeded), codes.FailedPrecondition},
		"no error":                            {nil, codes.OK},
	} {
		t.Run(sentence, func(t *testing.T) {
			service := &transferServer{
				hello: func(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
					return &vmreplicav1.HelloResponse{}, c.err
				},
				transfer: func(transferStream) error { return c.err },
			}
			client := pair(t, transport.ServerConfig{Translate: translate}, service)
			if err := hello(t, client); status.Code(err) != c.want {
				t.Errorf("unary: %v", err)
			}
			_, err := openStream(t, client).Recv()
			if code := status.Code(err); code != c.want && !(c.want == codes.OK && errors.Is(err, io.EOF)) {
				t.Errorf("stream: %v", err)
			}
		})
	}
}

func TestASilentHandshakeIsEnded(t *testing.T) {
	ours := newPKI(t, "")
	address := serve(t, transport.ServerConfig{Credentials: ours.load(transport.RoleReplica, "r"),
		ConnectionTimeout: 200 * time.Millisecond}, &transferServer{})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("a silent connection: %v", err)
	}
}

func TestHandshakesOfOneHostAreBounded(t *testing.T) {
	ours := newPKI(t, "")
	var log logBuffer
	address := serve(t, transport.ServerConfig{Credentials: ours.load(transport.RoleReplica, "r"),
		Log: log.logger()}, &transferServer{})
	const extra = 3
	ended := make(chan error, transport.MaxHandshakesOfHost+extra)
	for range transport.MaxHandshakesOfHost + extra {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
	}
	for range extra {
		receiveWithin(t, 10*time.Second, ended, "the end of a handshake too many")
	}
	if open := len(ended); open != 0 {
		t.Errorf("%d handshakes more were ended", open)
	}
	if got := strings.Count(log.String(), "connection refused"); got != extra {
		t.Errorf("%d refusals in the log:\n%s", got, log.String())
	}
}

func TestNoSessionIsResumed(t *testing.T) {
	ours := newPKI(t, "")
	address := serve(t, transport.ServerConfig{Credentials: ours.load(transport.RoleReplica, "r")}, &transferServer{})
	config := ours.clientConfig(ours.sign(leaf{uris: []string{"spiffe://vmreplica/vmreplica/viewer/v"}, usages: bothUsages}))
	config.ServerName, config.NextProtos = "localhost", []string{"h2"}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		// The first bytes of HTTP/2 come after any ticket.
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		conn.Close()
	}
	if _, ok := config.ClientSessionCache.Get("localhost"); ok {
		t.Error("the server gave a ticket")
	}
}

func TestHealthIsTheCallersToSet(t *testing.T) {
	state := health.NewServer()
	client := pair(t, transport.ServerConfig{Health: state}, &transferServer{})
	for _, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{
		grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		state.SetServingStatus("", want)
		got, err := grpc_health_v1.NewHealthClient(client).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || got.GetStatus() != want {
			t.Errorf("health %v, %v; want %v", got.GetStatus(), err, want)
		}
	}
}

func TestAServersOwnStopWaitsForItsHandlers(t *testing.T) {
	ours := newPKI(t, "")
	running, ended := make(chan struct{}), make(chan struct{})
	service := &transferServer{transfer: func(stream transferStream) error {
		close(running)
		<-stream.Context().Done()
		time.Sleep(50 * time.Millisecond)
		close(ended)
		return nil
	}}
	server := transport.NewServer(transport.ServerConfig{
		Credentials: ours.load(transport.RoleReplica, "r"), Log: discard()})
	vmreplicav1.RegisterTransferServiceServer(server, service)
	client := dial(t, start(t, server), transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p")})
	openStream(t, client)
	receiveWithin(t, 10*time.Second, running, "the call")
	server.Stop()
	select {
	case <-ended:
	default:
		t.Error("a handler runs after Stop")
	}
}

func TestStopLetsCallsEndAndThenCancelsThem(t *testing.T) {
	ours := newPKI(t, "")
	for sentence, bound := range map[string]time.Duration{"ends by itself": time.Minute, "is cancelled": 50 * time.Millisecond} {
		t.Run(sentence, func(t *testing.T) {
			running, ended := make(chan struct{}), make(chan error, 1)
			service := &transferServer{transfer: func(stream transferStream) error {
				close(running)
				_, err := stream.Recv()
				ended <- err
				return nil
			}}
			server := transport.NewServer(transport.ServerConfig{
				Credentials: ours.load(transport.RoleReplica, "r"), Log: discard()})
			vmreplicav1.RegisterTransferServiceServer(server, service)
			address := start(t, server)
			client := dial(t, address, transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p")})
			stream := openStream(t, client)
			receiveWithin(t, 10*time.Second, running, "the call")
			if bound == time.Minute {
				time.AfterFunc(50*time.Millisecond, func() { stream.CloseSend() })
			}
			transport.Stop(server, bound)
			select {
			case err := <-ended:
				if graceful := errors.Is(err, io.EOF); graceful != (bound == time.Minute) {
					t.Errorf("the handler ended with %v", err)
				}
			default:
				t.Error("a handler runs after Stop")
			}
		})
	}
}
