//go:build !linux

package transport

import "net"

// tuneSocket does nothing: this platform cannot bound what waits in a socket unsent, so control messages may
// queue behind data.
func tuneSocket(net.Conn) error { return nil }
