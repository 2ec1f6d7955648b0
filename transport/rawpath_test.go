package transport_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"vmreplica/transport"
)

// rawClient speaks HTTP/2 by hand, as no gRPC library would.
type rawClient struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
	next   uint32
}

func newRawClient(t *testing.T, address string, config *tls.Config) *rawClient {
	t.Helper()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return &rawClient{t: t, conn: conn, framer: framer, next: 1}
}

// open sends the headers of a call with an empty message and answers its stream.
func (c *rawClient) open(path string, more ...hpack.HeaderField) uint32 {
	c.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	}, more...) {
		encoder.WriteField(field)
	}
	id := c.next
	c.next += 2
	first := min(block.Len(), 16000)
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: block.Next(first), EndHeaders: block.Len() == 0})
	for err == nil && block.Len() > 0 {
		part := bytes.Clone(block.Next(16000))
		err = c.framer.WriteContinuation(id, block.Len() == 0, part)
	}
	if err == nil {
		err = c.framer.WriteData(id, true, make([]byte, 5))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// outcome is the grpc-status of a stream, or "reset".
func (c *rawClient) outcome(id uint32) string {
	c.t.Helper()
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if frame.Header().StreamID != id {
			continue
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == "grpc-status" {
					return field.Value
				}
			}
		case *http2.RSTStreamFrame:
			return "reset"
		}
	}
}

func TestAPathSpeltOtherwiseReachesNothing(t *testing.T) {
	ours := newPKI(t, "")
	a := newAgent(t, ours.load(transport.RoleReplica, "r"), discard())
	viewer := ours.sign(leaf{uris: []string{"spiffe://vmreplica/vmreplica/viewer/v"},
		usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	config := ours.clientConfig(viewer)
	config.ServerName = "localhost"
	client := newRawClient(t, a.address, config)
	if got := client.outcome(client.open("/vmreplica.v1.ReplicationService/GetReplication")); got != "12" || a.reached.Load() != 1 {
		t.Fatalf("the right path of a viewer's method: status %s, reached %d times", got, a.reached.Load())
	}
	for _, path := range []string{
		"vmreplica.v1.ReplicationService/CreateReplication", "/vmreplica.v1.ReplicationService/CreateReplication",
		"//vmreplica.v1.ReplicationService/CreateReplication", "/vmreplica.v1.ReplicationService//CreateReplication",
		"/vmreplica.v1.ReplicationService/CreateReplication/", "/vmreplica.v1.ReplicationService/createReplication",
		"/VMReplica.v1.ReplicationService/CreateReplication", "/vmreplica.v1.ReplicationService/CreateReplication?x",
		"/vmreplica.v1.ReplicationService%2FCreateReplication", "/./vmreplica.v1.ReplicationService/CreateReplication",
		"/x/../vmreplica.v1.ReplicationService/CreateReplication", "", "/", "//", "*",
		"/vmreplica.v1.ReplicationService/GetReplication/../CreateReplication",
		"vmreplica.v1.ReplicationService/GetReplication", "//vmreplica.v1.ReplicationService/GetReplication",
	} {
		if got := client.outcome(client.open(path)); got == "0" || a.reached.Load() != 1 {
			t.Errorf("path %q: status %s, reached %d times", path, got, a.reached.Load()-1)
		}
	}
}

func TestHeadersOverTheLimitAreRefused(t *testing.T) {
	ours := newPKI(t, "")
	a := newAgent(t, ours.load(transport.RoleReplica, "r"), discard())
	operator := ours.sign(leaf{uris: []string{"spiffe://vmreplica/vmreplica/operator/o"},
		usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	config := ours.clientConfig(operator)
	config.ServerName = "localhost"
	client := newRawClient(t, a.address, config)
	large := hpack.HeaderField{Name: "x-large", Value: strings.Repeat("a", transport.MaxHeaderSize)}
	if got := client.outcome(client.open("/vmreplica.v1.AgentService/GetAgent", large)); got != "reset" {
		t.Errorf("headers over the limit: status %s", got)
	}
	if got := client.outcome(client.open("/vmreplica.v1.AgentService/GetAgent")); got != "12" || a.reached.Load() != 1 {
		t.Errorf("the call after: status %s, reached %d times", got, a.reached.Load())
	}
}
