package transport_test

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/transport"
)

// handOut passes on what is accepted.
type handOut struct {
	net.Listener
	conns chan net.Conn
}

func (l *handOut) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.conns <- conn
	}
	return conn, err
}

func TestUnsentDataIsBoundedOnBothSides(t *testing.T) {
	ours := newPKI(t, "")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, 2)
	server := transport.NewServer(transport.ServerConfig{
		Credentials: ours.load(transport.RoleReplica, "r"), Log: discard()})
	startOn(t, server, &handOut{Listener: listener, conns: conns})
	dialer := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			conns <- conn
		}
		return conn, err
	}
	client := dial(t, listener.Addr().String(), transport.DialConfig{
		Credentials: ours.load(transport.RolePrimary, "p"), Dialer: dialer})
	call(t, client, "/grpc.health.v1.Health/Check")
	for range 2 {
		conn := <-conns
		if got := lowat(t, conn); got != transport.NotSentLowat {
			t.Errorf("the socket at %s may hold %d unsent bytes", conn.LocalAddr(), got)
		}
	}
}

func lowat(t *testing.T, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int
	var getError error
	if err := raw.Control(func(fd uintptr) {
		value, getError = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
	}); err != nil || getError != nil {
		t.Fatal(err, getError)
	}
	return value
}
