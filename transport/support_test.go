package transport_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vmreplica/internal/pki"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testPKI is an authority in a directory of the test.
type testPKI struct {
	t   testing.TB
	dir string
}

func newPKI(t testing.TB, trustDomain string) testPKI {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := pki.Init(dir, trustDomain); err != nil {
		t.Fatal(err)
	}
	return testPKI{t: t, dir: dir}
}

// issue makes or renews a holder's directory.
func (p testPKI) issue(role transport.Role, name string) string {
	p.t.Helper()
	var hosts []string
	if role == transport.RoleReplica {
		hosts = []string{"replica.example"}
	}
	issued, err := pki.Issue(p.dir, string(role), name, hosts)
	if err != nil {
		p.t.Fatal(err)
	}
	return issued.Directory
}

func (p testPKI) load(role transport.Role, name string) *transport.Credentials {
	p.t.Helper()
	return load(p.t, p.issue(role, name))
}

func load(t testing.TB, dir string) *transport.Credentials {
	t.Helper()
	credentials, err := transport.LoadCredentials(dir, discard())
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

// authority is the authority's certificate and key, read without the product's help.
func (p testPKI) authority() (*x509.Certificate, crypto.Signer) {
	p.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(p.dir, "ca.crt"), filepath.Join(p.dir, "ca.key"))
	if err != nil {
		p.t.Fatal(err)
	}
	return pair.Leaf, pair.PrivateKey.(crypto.Signer)
}

func (p testPKI) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	certificate, _ := p.authority()
	pool.AddCert(certificate)
	return pool
}

// leaf is a certificate that a careless authority might sign.
type leaf struct {
	uris      []string
	usages    []x509.ExtKeyUsage
	notBefore time.Time
	notAfter  time.Time
	hosts     []string
}

var bothUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}

func (p testPKI) sign(l leaf) tls.Certificate {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: l.usages, KeyUsage: x509.KeyUsageDigitalSignature, DNSNames: l.hosts,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if !l.notBefore.IsZero() {
		template.NotBefore = l.notBefore
	}
	if !l.notAfter.IsZero() {
		template.NotAfter = l.notAfter
	}
	for _, text := range l.uris {
		parsed, err := url.Parse(text)
		if err != nil {
			p.t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	parent, signer := p.authority()
	encoded, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		p.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{encoded}, PrivateKey: key}
}

// directory writes a certificate as a credentials directory.
func (p testPKI) directory(certificate tls.Certificate) string {
	p.t.Helper()
	dir := p.t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		p.t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(p.dir, "ca.crt"))
	if err != nil {
		p.t.Fatal(err)
	}
	write(p.t, filepath.Join(dir, "tls.crt"), pemText("CERTIFICATE", certificate.Certificate[0]))
	write(p.t, filepath.Join(dir, "tls.key"), pemText("PRIVATE KEY", key))
	write(p.t, filepath.Join(dir, "ca.crt"), authority)
	return dir
}

func pemText(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// transferServer is a TransferService made of functions.
type transferServer struct {
	vmreplicav1.UnimplementedTransferServiceServer
	hello    func(context.Context, *vmreplicav1.HelloRequest) (*vmreplicav1.HelloResponse, error)
	transfer func(grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse]) error
}

func (s *transferServer) Hello(
	ctx context.Context, request *vmreplicav1.HelloRequest,
) (*vmreplicav1.HelloResponse, error) {
	if s.hello == nil {
		return &vmreplicav1.HelloResponse{}, nil
	}
	return s.hello(ctx, request)
}

func (s *transferServer) Transfer(
	stream grpc.BidiStreamingServer[vmreplicav1.TransferRequest, vmreplicav1.TransferResponse],
) error {
	if s.transfer == nil {
		return status.Error(codes.Unimplemented, "no transfer")
	}
	return s.transfer(stream)
}

// serve serves over a real socket until the test ends and answers its address.
func serve(t testing.TB, config transport.ServerConfig, service vmreplicav1.TransferServiceServer) string {
	t.Helper()
	if config.Log == nil {
		config.Log = discard()
	}
	server := transport.NewServer(config)
	vmreplicav1.RegisterTransferServiceServer(server, service)
	return start(t, server)
}

func start(t testing.TB, server *grpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	startOn(t, server, listener)
	return listener.Addr().String()
}

func startOn(t testing.TB, server *grpc.Server, listener net.Listener) {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
}

func dial(t testing.TB, address string, config transport.DialConfig) *grpc.ClientConn {
	t.Helper()
	client, err := transport.Dial(address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// hello calls Hello once.
func hello(t testing.TB, client *grpc.ClientConn, options ...grpc.CallOption) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := vmreplicav1.NewTransferServiceClient(client).Hello(ctx, &vmreplicav1.HelloRequest{}, options...)
	return err
}

// receiveWithin waits for a value, or fails.
func receiveWithin[T any](t testing.TB, bound time.Duration, channel <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-channel:
		return value
	case <-time.After(bound):
		t.Fatalf("%s did not happen within %s", what, bound)
		panic("unreachable")
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// listenTLS shakes hands with a certificate and says nothing more.
func listenTLS(t *testing.T, certificate tls.Certificate) (address string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return listener.Addr().String()
}
