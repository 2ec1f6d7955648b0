package primary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"

	"vmreplica/internal/failure"
	"vmreplica/internal/nbd"
)

// machines is the socket at which machines attach their disks.
type machines struct {
	socket   string
	listener *net.UnixListener
	server   *nbd.Server
}

// openMachines listens at the socket, or takes the one that systemd holds: a machine that connects while the agent is
// started anew waits there instead of being refused.
func (a *agent) openMachines(config *Config) (*machines, error) {
	m := &machines{socket: config.NBDSocket}
	if m.socket == "" {
		m.socket = filepath.Join(config.StateDir, nbdSocket)
	}
	uids, err := userIDs(config.NBDUsers)
	if err != nil {
		return nil, err
	}
	if m.listener, err = inherited(); err == nil && m.listener == nil {
		m.listener, err = openSocket(m.socket, uids)
	}
	if err != nil {
		return nil, err
	}
	if m.socket, err = filepath.Abs(m.listener.Addr().String()); err != nil {
		return nil, errors.Join(err, m.listener.Close())
	}
	m.server, err = nbd.NewServer(nbd.Options{
		Listener: m.listener, AllowedUIDs: append(uids, 0, uint32(os.Geteuid())),
		Lookup:  func(name string) (nbd.Export, error) { return a.manager.Attach(context.Background(), name) },
		Release: a.manager.Detach, List: a.manager.Exports, Log: a.host.Log.With("part", "nbd"),
	})
	if err != nil {
		return nil, errors.Join(err, m.listener.Close())
	}
	return m, nil
}

// nbdSocket is the socket's name in the state directory.
const nbdSocket = "nbd.sock"

// inherited is the unix socket that the service manager holds; nil when it holds none.
func inherited() (*net.UnixListener, error) {
	listeners, err := activation.Listeners()
	if err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the inherited sockets: %w", err)
	}
	var found *net.UnixListener
	for _, listener := range listeners {
		unix, ok := listener.(*net.UnixListener)
		if ok && found == nil {
			unix.SetUnlinkOnClose(false)
			found = unix
			continue
		}
		if listener != nil {
			return nil, errors.Join(failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"the service manager hands over %s, which is not the one NBD socket", listener.Addr()), listener.Close())
		}
	}
	return found, nil
}

// openSocket makes the socket; the state directory's lock says that an agent that left one there has ended.
func openSocket(path string, uids []uint32) (*net.UnixListener, error) {
	listener, err := nbd.Listen(path)
	if err == nil && len(uids) > 0 {
		// Who may connect is checked for each connection; the mode only lets those users get that far.
		if err = os.Chmod(path, 0o666); err != nil {
			err = errors.Join(err, listener.Close())
		}
	}
	if err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err).
			Try("Give --nbd-socket a path in a directory that the agent may write to, of at most 107 bytes.")
	}
	return listener, nil
}

// userIDs are users by name or number.
func userIDs(names []string) ([]uint32, error) {
	var uids []uint32
	for _, name := range names {
		text := name
		if known, err := user.Lookup(name); err == nil {
			text = known.Uid
		}
		uid, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the user %q is not known here", name).
				Try("Give --nbd-user the name or number of the user that machines run as, as in libvirt-qemu.")
		}
		uids = append(uids, uint32(uid))
	}
	return uids, nil
}

// serve serves machines until drain.
func (m *machines) serve() error {
	if err := m.server.Serve(context.Background()); err != nil {
		return failure.New(failure.Internal, failure.ReasonInternal, "serve machines: %w", err)
	}
	return nil
}

// drain answers what machines have under way and lets them wait for the next agent.
func (m *machines) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainBound)
	defer cancel()
	if err := m.server.Drain(ctx); err != nil {
		return fmt.Errorf("machines were cut off: %w", err)
	}
	return nil
}

// close lets the socket go.
func (m *machines) close() error { return m.listener.Close() }
