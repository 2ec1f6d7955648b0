package transport

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// tuneSocket bounds what waits in a TCP socket unsent. An accepted socket does not inherit it.
func tuneSocket(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	socket, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("bound unsent data of the socket: %w", err)
	}
	var setError error
	err = socket.Control(func(fd uintptr) {
		setError = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
	})
	if err == nil {
		err = setError
	}
	if err != nil {
		return fmt.Errorf("bound unsent data of the socket: %w", err)
	}
	return nil
}
