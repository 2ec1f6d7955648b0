package transport

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// tuneSocket bounds what waits in the socket unsent. A listener hands it on to what it accepts.
func tuneSocket(_, _ string, socket syscall.RawConn) error {
	var setError error
	err := socket.Control(func(fd uintptr) {
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
