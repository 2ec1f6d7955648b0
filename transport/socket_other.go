//go:build !linux

package transport

import "syscall"

// tuneSocket does nothing: this platform cannot bound what waits in a socket unsent, so control messages may
// queue behind data.
func tuneSocket(_, _ string, _ syscall.RawConn) error { return nil }
