package transport_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

type (
	transferStream = grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]
	clientStream   = grpc.BidiStreamingClient[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]
)

// digestFrames answers each frame with the digest of every payload so far.
func digestFrames(stream transferStream) error {
	hash := sha256.New()
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		hash.Write(request.GetFrame().GetPayload())
		finished := &vmreplicav1.TransferFinished{Root: hash.Sum(nil)}
		response := &vmreplicav1.TransferResponse{
			Message: &vmreplicav1.TransferResponse_Finished{Finished: finished}}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func frame(payload []byte) *vmreplicav1.TransferRequest {
	return &vmreplicav1.TransferRequest{
		Message: &vmreplicav1.TransferRequest_Frame{Frame: &vmreplicav1.Frame{Payload: payload}}}
}

func openStream(t testing.TB, client *grpc.ClientConn) clientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := vmreplicav1.NewTransferServiceClient(client).Transfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func exchange(t testing.TB, stream clientStream, payload []byte) ([]byte, error) {
	t.Helper()
	if err := stream.Send(frame(payload)); err != nil {
		_, err = stream.Recv()
		return nil, err
	}
	response, err := stream.Recv()
	return response.GetFinished().GetRoot(), err
}

func TestHundredRotationsUnderAnOpenStream(t *testing.T) {
	ours := newPKI(t, "")
	server := ours.load(transport.RoleReplica, "r")
	client := ours.load(transport.RolePrimary, "p")
	address := serve(t, transport.ServerConfig{Credentials: server}, &transferServer{transfer: digestFrames})
	stream := openStream(t, dial(t, address, transport.DialConfig{Credentials: client, Want: transport.RoleReplica}))
	hash, random := sha256.New(), rand.NewChaCha8([32]byte{1})
	for rotation := range 100 {
		ours.issue(transport.RoleReplica, "r")
		ours.issue(transport.RolePrimary, "p")
		if err := errors.Join(server.Reload(), client.Reload()); err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, 1+rotation*1000)
		random.Read(payload)
		hash.Write(payload)
		digest, err := exchange(t, stream, payload)
		if err != nil || !bytes.Equal(digest, hash.Sum(nil)) {
			t.Fatalf("rotation %d: what arrived differs, %v", rotation, err)
		}
		if rotation%10 == 0 {
			checkSerials(t, address, client, server)
		}
	}
}

// checkSerials makes a new connection and checks that both sides show their newest certificate.
func checkSerials(t *testing.T, address string, client, server *transport.Credentials) {
	t.Helper()
	fresh := dial(t, address, transport.DialConfig{Credentials: client})
	defer fresh.Close()
	var answered peer.Peer
	if err := hello(t, fresh, grpc.Peer(&answered)); err != nil {
		t.Fatal(err)
	}
	shown := answered.AuthInfo.(transport.AuthInfo).State.PeerCertificates[0].SerialNumber.String()
	if shown != server.Serial() {
		t.Errorf("a new connection shows certificate %s, loaded is %s", shown, server.Serial())
	}
}

func TestAnAuthorityChangesByWayOfBoth(t *testing.T) {
	old, new := newPKI(t, ""), newPKI(t, "")
	oldDir, newDir := old.issue(transport.RoleReplica, "r"), new.issue(transport.RolePrimary, "p")
	write(t, oldDir+"/ca.crt", append(read(t, old.dir+"/ca.crt"), read(t, new.dir+"/ca.crt")...))
	write(t, newDir+"/ca.crt", append(read(t, new.dir+"/ca.crt"), read(t, old.dir+"/ca.crt")...))
	address := serve(t, transport.ServerConfig{Credentials: load(t, oldDir)}, &transferServer{})
	if err := hello(t, dial(t, address, transport.DialConfig{Credentials: load(t, newDir)})); err != nil {
		t.Error(err)
	}
}

// clockBefore is a clock that will show moment when wait has passed.
func clockBefore(moment time.Time, wait time.Duration) func() time.Time {
	begin := time.Now()
	return func() time.Time { return moment.Add(-wait + time.Since(begin)) }
}

func TestALiveConnectionEndsWithThePeersCertificate(t *testing.T) {
	ours := newPKI(t, "")
	end := time.Now().Add(30 * time.Minute)
	short := func(role string) string {
		return ours.directory(ours.sign(leaf{uris: []string{"spiffe://vmreplica/vmreplica/" + role + "/x"},
			usages: bothUsages, notAfter: end}))
	}
	for sentence, dirs := range map[string][2]string{
		"the client's ends": {ours.issue(transport.RoleReplica, "r"), short("primary")},
		"the server's ends": {short("replica"), ours.issue(transport.RolePrimary, "p")},
	} {
		t.Run(sentence, func(t *testing.T) {
			wait := 700 * time.Millisecond
			clock := clockBefore(end.Truncate(time.Second), wait)
			server, err := transport.LoadCredentialsAt(dirs[0], discard(), clock)
			if err != nil {
				t.Fatal(err)
			}
			client, err := transport.LoadCredentialsAt(dirs[1], discard(), clock)
			if err != nil {
				t.Fatal(err)
			}
			address := serve(t, transport.ServerConfig{Credentials: server}, &transferServer{transfer: digestFrames})
			stream := openStream(t, dial(t, address, transport.DialConfig{Credentials: client}))
			begin := time.Now()
			if _, err := exchange(t, stream, []byte("x")); err != nil {
				t.Fatalf("before the end: %v", err)
			}
			if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
				t.Errorf("the stream ended with %v", err)
			}
			if waited := time.Since(begin); waited > wait+5*time.Second {
				t.Errorf("the stream ended after %s", waited)
			}
		})
	}
}

func TestCloseIdentityEndsItsConnectionsAlone(t *testing.T) {
	ours := newPKI(t, "")
	own := ours.load(transport.RoleReplica, "r")
	address := serve(t, transport.ServerConfig{Credentials: own}, &transferServer{transfer: digestFrames})
	streams := map[string][]clientStream{}
	for _, name := range []string{"a", "b"} {
		for range 2 {
			credentials := ours.load(transport.RolePrimary, name)
			stream := openStream(t, dial(t, address, transport.DialConfig{Credentials: credentials}))
			if _, err := exchange(t, stream, []byte("x")); err != nil {
				t.Fatal(err)
			}
			streams[name] = append(streams[name], stream)
		}
	}
	closed := own.CloseIdentity(func(who transport.Identity) bool { return who.Name == "a" })
	if closed != 2 {
		t.Errorf("%d connections closed", closed)
	}
	for _, stream := range streams["a"] {
		ended := make(chan error, 1)
		go func() {
			_, err := stream.Recv()
			ended <- err
		}()
		if err := receiveWithin(t, 5*time.Second, ended, "the end of a stream"); status.Code(err) != codes.Unavailable {
			t.Errorf("closed stream: %v", err)
		}
	}
	for _, stream := range streams["b"] {
		if _, err := exchange(t, stream, []byte("y")); err != nil {
			t.Errorf("the other's stream: %v", err)
		}
	}
}

func TestCloseIdentityEndsAConnectionWhosePeerDoesNotRead(t *testing.T) {
	ours := newPKI(t, "")
	own := ours.load(transport.RoleReplica, "r")
	ended := make(chan error, 1)
	flood := func(stream transferStream) error {
		digests := &vmreplicav1.Digests{Runs: []*vmreplicav1.DigestRun{{Digests: make([]byte, 1<<20)}}}
		response := &vmreplicav1.TransferResponse{
			Message: &vmreplicav1.TransferResponse_Digests{Digests: digests}}
		for {
			if err := stream.Send(response); err != nil {
				ended <- err
				return err
			}
		}
	}
	address := serve(t, transport.ServerConfig{Credentials: own}, &transferServer{transfer: flood})
	held := make(chan *heldConn, 1)
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		stopped := &heldConn{Conn: conn, closed: make(chan struct{})}
		held <- stopped
		return stopped, nil
	}
	client := dial(t, address, transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p"), Dialer: dialer})
	stream := openStream(t, client)
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	(<-held).held.Store(true)
	if own.CloseIdentity(func(transport.Identity) bool { return true }) != 1 {
		t.Error("no connection closed")
	}
	receiveWithin(t, 5*time.Second, ended, "the end of the handler")
}

// heldConn stops reading when held, until it is closed.
type heldConn struct {
	net.Conn
	held   atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (c *heldConn) Read(p []byte) (int, error) {
	if c.held.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Read(p)
}

func (c *heldConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestConnectionsOfAnIdentityAreBounded(t *testing.T) {
	ours := newPKI(t, "")
	own := ours.load(transport.RoleReplica, "r")
	address := serve(t, transport.ServerConfig{Credentials: own}, &transferServer{})
	credentials := ours.load(transport.RolePrimary, "p")
	var clients []*grpc.ClientConn
	for range transport.MaxConnectionsOfIdentity {
		client := dial(t, address, transport.DialConfig{Credentials: credentials})
		if err := hello(t, client); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	config := transport.DialConfig{Credentials: credentials}
	if err := hello(t, dial(t, address, config)); status.Code(err) != codes.Unavailable {
		t.Errorf("one connection more: %v", err)
	}
	config.Credentials = ours.load(transport.RolePrimary, "q")
	if err := hello(t, dial(t, address, config)); err != nil {
		t.Errorf("another identity: %v", err)
	}
	for _, client := range clients {
		client.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for own.Connections() > 2 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if err := hello(t, dial(t, address, transport.DialConfig{Credentials: credentials})); err != nil {
		t.Errorf("after the others were closed: %v", err)
	}
}

func TestDialRefusesAServerThatIsNotWanted(t *testing.T) {
	ours, others := newPKI(t, ""), newPKI(t, "")
	uri := "spiffe://vmreplica/vmreplica/replica/r"
	hosts := []string{"localhost"}
	good := leaf{uris: []string{uri}, usages: bothUsages, hosts: hosts}
	cases := map[string]struct {
		server testPKI
		leaf   leaf
		want   transport.Role
		host   string
		fine   bool
	}{
		"the wanted role":      {ours, good, transport.RoleReplica, "localhost", true},
		"either agent":         {ours, good, "", "localhost", true},
		"by address":           {ours, good, transport.RoleReplica, "127.0.0.1", true},
		"another role":         {ours, good, transport.RolePrimary, "localhost", false},
		"another host":         {ours, leaf{uris: good.uris, usages: bothUsages, hosts: []string{"other"}}, "", "localhost", false},
		"another authority":    {others, good, transport.RoleReplica, "localhost", false},
		"another trust domain": {ours, leaf{uris: []string{"spiffe://x/vmreplica/replica/r"}, usages: bothUsages, hosts: hosts}, "", "localhost", false},
		"an operator":          {ours, leaf{uris: []string{"spiffe://vmreplica/vmreplica/operator/r"}, usages: bothUsages, hosts: hosts}, "", "localhost", false},
	}
	client := ours.load(transport.RolePrimary, "p")
	for sentence, c := range cases {
		t.Run(sentence, func(t *testing.T) {
			dir := c.server.directory(c.server.sign(c.leaf))
			// The server lets our client in whatever its own authority is.
			write(t, dir+"/ca.crt", append(read(t, ours.dir+"/ca.crt"), read(t, c.server.dir+"/ca.crt")...))
			address := serve(t, transport.ServerConfig{Credentials: load(t, dir)}, &transferServer{})
			_, port, _ := net.SplitHostPort(address)
			err := hello(t, dial(t, net.JoinHostPort(c.host, port), transport.DialConfig{Credentials: client, Want: c.want}))
			switch {
			case c.fine && c.leaf.uris[0] != uri, !c.fine && status.Code(err) != codes.Unavailable:
				t.Errorf("answered %v", err)
			case c.fine && status.Code(err) != codes.OK:
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestDialRefusesAServerWhoseCertificateIsForClients(t *testing.T) {
	ours := newPKI(t, "")
	certificate := ours.sign(leaf{uris: []string{"spiffe://vmreplica/vmreplica/replica/r"},
		usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	listener := listenTLS(t, certificate)
	client := dial(t, listener, transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p")})
	if err := hello(t, client); status.Code(err) != codes.Unavailable {
		t.Errorf("answered %v", err)
	}
}

func TestDialRefusesAnAddressWithoutPort(t *testing.T) {
	credentials := newPKI(t, "").load(transport.RolePrimary, "p")
	for _, address := range []string{"", "host", ":7443", "host:", "a:b:c", "unix:///x", "dns:///h:1", "h:http",
		"h:0", "h:65536", "h/x:1", "u@h:1"} {
		if client, err := transport.Dial(address, transport.DialConfig{Credentials: credentials}); err == nil {
			client.Close()
			t.Errorf("%q was taken", address)
		}
	}
}

func TestPeerIdentityInAHandler(t *testing.T) {
	ours := newPKI(t, "d.example")
	seen := make(chan string, 1)
	service := &transferServer{hello: func(ctx context.Context, _ *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error) {
		who, ok := transport.PeerIdentity(ctx)
		seen <- fmt.Sprint(who, ok)
		return &vmreplicav1.HelloResponse{}, nil
	}}
	address := serve(t, transport.ServerConfig{Credentials: ours.load(transport.RoleReplica, "r")}, service)
	if err := hello(t, dial(t, address, transport.DialConfig{Credentials: ours.load(transport.RolePrimary, "p")})); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got != "spiffe://d.example/vmreplica/primary/p true" {
		t.Errorf("the handler saw %s", got)
	}
	if who, ok := transport.PeerIdentity(t.Context()); ok {
		t.Errorf("outside a call there is %v", who)
	}
}
