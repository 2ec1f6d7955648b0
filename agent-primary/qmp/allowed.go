package qmp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vmreplica/internal/failure"
)

// Allowed is which monitors the agent may ask. The zero one allows none.
type Allowed struct{ patterns []string }

// Allow takes the patterns of the agent's start-up, which are absolute.
func Allow(patterns []string) (Allowed, error) {
	for _, pattern := range patterns {
		if _, err := filepath.Match(pattern, "/"); err != nil || !filepath.IsAbs(pattern) {
			return Allowed{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"the monitor pattern %q is not an absolute path with wildcards", pattern).Try("Write it like /run/qemu/*.qmp.")
		}
	}
	return Allowed{patterns}, nil
}

// resolve is where socket leads: an existing socket that a pattern names. What no pattern names is refused alike whether
// it exists or not.
func (a Allowed) resolve(socket string) (string, error) {
	if !filepath.IsAbs(socket) {
		return "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the path %q is not absolute", socket).
			Try("Write the whole path, beginning at the root.")
	}
	real, err := filepath.EvalSymlinks(socket)
	if err != nil {
		real = filepath.Clean(socket)
	}
	if !a.matches(real) {
		return "", a.outside(socket)
	}
	if err != nil {
		return "", unreachable(socket, err)
	}
	about, err := os.Lstat(real)
	if err != nil {
		return "", unreachable(socket, err)
	}
	if about.Mode().Type() != fs.ModeSocket {
		return "", failure.New(failure.Precondition, failure.ReasonUnsupported, "%s is not a socket", socket).
			Try("Name the socket of the machine's -qmp unix:PATH,server=on,wait=off.")
	}
	return real, nil
}

func (a Allowed) matches(path string) bool {
	for _, pattern := range a.patterns {
		if matched, err := filepath.Match(pattern, path); matched && err == nil {
			return true
		}
	}
	return false
}

func (a Allowed) outside(socket string) error {
	allowed := "none"
	if len(a.patterns) > 0 {
		allowed = strings.Join(a.patterns, ", ")
	}
	return failure.New(failure.Denied, failure.ReasonPathOutside, "%s is no monitor that this agent may ask: %s", socket, allowed).
		Try("Start the agent with another --qmp-socket.")
}

// unreachable is why nobody answers at socket: most often its machine does not run.
func unreachable(socket string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure.New(failure.Denied, failure.ReasonNotAuthorized, "the monitor at %s cannot be opened: %w", socket, err).
			Try("Let the agent's user write to the socket.")
	}
	return failure.New(failure.Unreachable, failure.ReasonNotFound, "the monitor at %s cannot be reached: %w", socket, err).
		Try("The socket exists while the machine runs with -qmp unix:%s,server=on,wait=off.", socket)
}
