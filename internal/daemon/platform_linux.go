package daemon

import "golang.org/x/sys/unix"

// PlatformLimits is what the agents cannot do on this platform, in sentences; empty on Linux.
func PlatformLimits() []string { return nil }

func forbidCoreDumps() error {
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
