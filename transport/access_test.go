package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// agent is a server with every service, each method unimplemented, and a count of the calls that reached one of
// ours.
type agent struct {
	address string
	server  *grpc.Server
	reached atomic.Int64
}

func newAgent(t *testing.T, own *transport.Credentials, log *slog.Logger) *agent {
	a := &agent{}
	a.server = transport.NewServer(transport.ServerConfig{Credentials: own, Log: log,
		Translate: func(err error) error {
			if status.Code(err) == codes.Unimplemented {
				a.reached.Add(1)
			}
			return err
		}})
	vmreplicav1.RegisterAgentServiceServer(a.server, vmreplicav1.UnimplementedAgentServiceServer{})
	vmreplicav1.RegisterAuthorizationServiceServer(a.server, vmreplicav1.UnimplementedAuthorizationServiceServer{})
	vmreplicav1.RegisterEventServiceServer(a.server, vmreplicav1.UnimplementedEventServiceServer{})
	vmreplicav1.RegisterReplicationServiceServer(a.server, vmreplicav1.UnimplementedReplicationServiceServer{})
	vmreplicav1.RegisterResyncServiceServer(a.server, vmreplicav1.UnimplementedResyncServiceServer{})
	vmreplicav1.RegisterTransferServiceServer(a.server, vmreplicav1.UnimplementedTransferServiceServer{})
	a.server.RegisterService(unmarkedService, nil)
	a.address = start(t, a.server)
	return a
}

// unmarkedService is served and has no rule: nobody may call it.
var unmarkedService = &grpc.ServiceDesc{ServiceName: "test.Unmarked",
	Streams: []grpc.StreamDesc{{StreamName: "Do", ServerStreams: true, ClientStreams: true,
		Handler: func(any, grpc.ServerStream) error { return status.Error(codes.Unimplemented, "reached") }}}}

// methods are the full names of all that is served.
func (a *agent) methods() []string {
	var names []string
	for service, info := range a.server.GetServiceInfo() {
		for _, method := range info.Methods {
			names = append(names, "/"+service+"/"+method.Name)
		}
	}
	slices.Sort(names)
	return names
}

// allowed is the rule of the design, told apart from the options: a primary moves data, looking is for viewers
// and operators, changing for operators alone, health and reflection for everyone.
func allowed(role transport.Role, method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	looks := slices.ContainsFunc([]string{"Get", "List", "Watch"}, func(verb string) bool {
		return strings.HasPrefix(name, verb)
	})
	switch {
	case strings.HasPrefix(service, "grpc.health.") || strings.HasPrefix(service, "grpc.reflection."):
		return true
	case !strings.HasPrefix(service, "vmreplica.v1."):
		return false
	case service == "vmreplica.v1.TransferService":
		return role == transport.RolePrimary
	case looks:
		return role == transport.RoleOperator || role == transport.RoleViewer
	default:
		return role == transport.RoleOperator
	}
}

// caller is somebody at the other end, by a TLS configuration of their own making. An empty role gets nowhere.
type caller struct {
	role   transport.Role
	config *tls.Config
}

func callers(ours testPKI) map[string]caller {
	stranger := newPKI(ours.t, "vmreplica")
	elsewhere := "spiffe://elsewhere/vmreplica/operator/x"
	operator := "spiffe://vmreplica/vmreplica/operator/x"
	clientUsage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	with := func(l leaf) *tls.Config { return ours.clientConfig(ours.sign(l)) }
	good := func(uri string) *tls.Config { return with(leaf{uris: []string{uri}, usages: clientUsage}) }
	oldTLS := good(operator)
	oldTLS.MaxVersion = tls.VersionTLS12
	return map[string]caller{
		"an operator":                    {transport.RoleOperator, good(operator)},
		"a viewer":                       {transport.RoleViewer, good("spiffe://vmreplica/vmreplica/viewer/x")},
		"a primary":                      {transport.RolePrimary, good("spiffe://vmreplica/vmreplica/primary/x")},
		"a replica":                      {transport.RoleReplica, good("spiffe://vmreplica/vmreplica/replica/x")},
		"no certificate":                 {"", &tls.Config{RootCAs: ours.pool()}},
		"a certificate signed by others": {"", ours.clientConfig(stranger.sign(leaf{uris: []string{operator}, usages: clientUsage}))},
		"a certificate that has ended": {"", with(leaf{uris: []string{operator}, usages: clientUsage,
			notBefore: time.Now().Add(-2 * time.Hour), notAfter: time.Now().Add(-time.Hour)})},
		"a certificate of tomorrow": {"", with(leaf{uris: []string{operator}, usages: clientUsage,
			notBefore: time.Now().Add(time.Hour), notAfter: time.Now().Add(2 * time.Hour)})},
		"TLS 1.2":                     {"", oldTLS},
		"a server's certificate":      {"", with(leaf{uris: []string{operator}, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})},
		"a certificate without usage": {"", with(leaf{uris: []string{operator}})},
		"a certificate for any usage": {"", with(leaf{uris: []string{operator}, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})},
		"no URI":                      {"", with(leaf{usages: clientUsage, hosts: []string{"operator"}})},
		"two URIs": {"", with(leaf{usages: clientUsage,
			uris: []string{operator, "spiffe://vmreplica/vmreplica/viewer/x"}})},
		"a URI and another":      {"", with(leaf{uris: []string{operator, "https://vmreplica/"}, usages: clientUsage})},
		"another trust domain":   {"", good(elsewhere)},
		"an unknown role":        {"", good("spiffe://vmreplica/vmreplica/root/x")},
		"a role in capitals":     {"", good("spiffe://vmreplica/vmreplica/OPERATOR/x")},
		"a longer path":          {"", good(operator + "/y")},
		"a query":                {"", good(operator + "?role=operator")},
		"an escaped slash":       {"", good("spiffe://vmreplica/vmreplica/viewer%2foperator/x")},
		"a port in the domain":   {"", good("spiffe://vmreplica:443/vmreplica/operator/x")},
		"the authority's domain": {"", good("spiffe://vmreplica")},
	}
}

func (p testPKI) clientConfig(certificate tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: p.pool(), GetClientCertificate: func(
		*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &certificate, nil
	}}
}

// call calls any method with an empty message and answers the code.
func call(t *testing.T, client *grpc.ClientConn, method string) codes.Code {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := client.NewStream(ctx, both, method)
	if err != nil {
		return status.Code(err)
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err == nil {
		stream.CloseSend()
	}
	return status.Code(stream.RecvMsg(&emptypb.Empty{}))
}

func TestEveryCallerAtEveryMethod(t *testing.T) {
	ours := newPKI(t, "")
	a := newAgent(t, ours.load(transport.RoleReplica, "r"), discard())
	methods := a.methods()
	if len(methods) < 30 {
		t.Fatalf("only %d methods are served", len(methods))
	}
	for name, who := range callers(ours) {
		t.Run(name, func(t *testing.T) {
			client, err := grpc.NewClient(a.address, grpc.WithTransportCredentials(credentials.NewTLS(who.config)))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			for _, method := range methods {
				a.checkCell(t, client, who.role, method)
			}
		})
	}
}

func (a *agent) checkCell(t *testing.T, client *grpc.ClientConn, role transport.Role, method string) {
	before := a.reached.Load()
	code := call(t, client, method)
	reached := a.reached.Load() - before
	open := !strings.HasPrefix(method, "/vmreplica.v1.")
	switch {
	case role == "" && (code != codes.Unavailable || reached != 0):
		t.Errorf("%s: %s instead of no connection", method, code)
	case role == "":
	case !allowed(role, method) && (code != codes.PermissionDenied || reached != 0):
		t.Errorf("%s: %s instead of a denial", method, code)
	case !allowed(role, method):
	case open && (code == codes.PermissionDenied || code == codes.Unauthenticated || code == codes.Unavailable):
		t.Errorf("%s: %s", method, code)
	case !open && (code != codes.Unimplemented || reached != 1):
		t.Errorf("%s: %s, handler reached %d times", method, code, reached)
	}
}

func TestAMethodThatIsNotServedIsNotReached(t *testing.T) {
	ours := newPKI(t, "")
	a := newAgent(t, ours.load(transport.RoleReplica, "r"), discard())
	client := dial(t, a.address, transport.DialConfig{Credentials: ours.load(transport.RoleOperator, "o")})
	for _, method := range []string{"/vmreplica.v1.AgentService/Nothing", "/nothing.Service/Get"} {
		if code := call(t, client, method); code != codes.Unimplemented || a.reached.Load() != 0 {
			t.Errorf("%s: %s", method, code)
		}
	}
}
