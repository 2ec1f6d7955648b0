package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// Listen makes a unix socket at path that its owner alone may open. A socket that lies there is replaced: the caller knows
// that whoever made it has ended. Anything else that lies there is an error.
func Listen(path string) (*net.UnixListener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		err = errors.New("something else lies there")
	case err == nil:
		err = os.Remove(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the NBD socket %s: %w", path, err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		if err = os.Chmod(path, 0o600); err != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the NBD socket %s: %w", path, err)
	}
	return listener, nil
}
