package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"vmreplica/agent-replica/chain"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
)

// exports serve recovery points, for reading, on a unix socket: "VM/DISK" is the newest content at the moment in which the
// first client of the VM connected, "VM/DISK@POINT" a point by its id or an unambiguous beginning. Clients that are connected
// to the same name at the same time read the same instant, whatever commits meanwhile.
type exports struct {
	registry *chain.Registry
	log      *slog.Logger
	listener *net.UnixListener

	mu sync.Mutex
	// open are the points that are read, by VM and point as their clients wrote them.
	open map[exportKey]*exportedPoint
}

type exportKey struct{ vm, point string }

// exportedPoint is a point that clients read.
type exportedPoint struct {
	pin *chain.Pin
	// clients are the lookups that were not released yet, and disks what they were answered.
	clients int
	disks   map[string]*exportedDisk
}

// exportedDisk is one disk of a point, as an NBD server sees it.
type exportedDisk struct {
	disk.Reader
	key         exportKey
	description string
}

var _ nbd.Export = (*exportedDisk)(nil)

// openExports listens at path; nil when it is empty.
func openExports(path string, registry *chain.Registry, log *slog.Logger) (*exports, error) {
	if path == "" {
		return nil, nil
	}
	listener, err := nbd.Listen(path)
	if err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%w", err).
			Try("Give --nbd-socket a path of at most 107 bytes in a directory that the agent may write to.")
	}
	return &exports{registry: registry, log: log, listener: listener, open: map[exportKey]*exportedPoint{}}, nil
}

// Run serves until ctx ends, and removes the socket.
func (e *exports) Run(ctx context.Context) error {
	server, err := nbd.NewServer(nbd.Options{
		Listener: e.listener, Lookup: e.lookup, Release: e.release, List: e.list, Log: e.log.With("part", "nbd"),
	})
	if err == nil {
		err = server.Serve(ctx)
	}
	return errors.Join(err, e.listener.Close())
}

// lookup answers an export by its name; the same one for the same name while it is in use.
func (e *exports) lookup(name string) (nbd.Export, error) {
	key, diskID, err := parseExport(name)
	if err != nil {
		return nil, err
	}
	if _, err := e.registry.Table().Get(key.vm); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	point := e.open[key]
	if point == nil {
		pin, err := e.registry.VM(key.vm).Pin(key.point, "the NBD export "+name)
		if err != nil {
			return nil, err
		}
		point = &exportedPoint{pin: pin, disks: map[string]*exportedDisk{}}
		e.open[key] = point
	}
	point.clients++
	exported, err := point.disk(key, diskID)
	if err != nil {
		return nil, errors.Join(err, e.leave(key))
	}
	return exported, nil
}

func (p *exportedPoint) disk(key exportKey, id string) (*exportedDisk, error) {
	if known := p.disks[id]; known != nil {
		return known, nil
	}
	reader, err := p.pin.Disk(id)
	if err != nil {
		return nil, err
	}
	what := "recovery point"
	if p.pin.Newest {
		what = "newest content"
	}
	p.disks[id] = &exportedDisk{Reader: reader, key: key, description: fmt.Sprintf("disk %s of the VM %s, %s %s of %s",
		id, key.vm, what, p.pin.Point.ID, p.pin.Point.Time.UTC().Format(time.RFC3339))}
	return p.disks[id], nil
}

func (e *exports) release(export nbd.Export) {
	exported, ours := export.(*exportedDisk)
	if !ours {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.leave(exported.key); err != nil {
		e.log.Error("close the disks after an NBD client", "vm", exported.key.vm, "error", err)
	}
}

// leave ends one lookup, and the reading with the last. mu is held.
func (e *exports) leave(key exportKey) error {
	point := e.open[key]
	if point.clients--; point.clients > 0 {
		return nil
	}
	delete(e.open, key)
	return point.pin.Release()
}

// parseExport reads VM/DISK or VM/DISK@POINT.
func parseExport(name string) (key exportKey, diskID string, err error) {
	vm, rest, _ := strings.Cut(name, "/")
	diskID, point, pointed := strings.Cut(rest, "@")
	if err := replication.CheckName("VM", vm); err != nil {
		return exportKey{}, "", err
	}
	if err := replication.CheckName("disk", diskID); err != nil {
		return exportKey{}, "", err
	}
	if pointed && (point == "" || len(point) > 32 || strings.Trim(point, "0123456789abcdef") != "") {
		return exportKey{}, "", failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"%.40q is not the beginning of a recovery point's id", point).On(vm, diskID)
	}
	return exportKey{vm: vm, point: point}, diskID, nil
}

// list names every export.
func (e *exports) list() []string {
	records, err := e.registry.Table().List()
	if err != nil {
		e.log.Error("the exports cannot be listed", "error", err)
		return nil
	}
	var names []string
	for _, record := range records {
		if _, _, err := record.FindPoint(""); err != nil {
			continue // nothing can be read of it
		}
		for _, d := range record.Disks {
			names = append(names, record.VM+"/"+d.ID)
			for _, point := range record.Points() {
				names = append(names, record.VM+"/"+d.ID+"@"+string(point.ID))
			}
		}
	}
	return names
}

// ReadOnly is true.
func (*exportedDisk) ReadOnly() bool { return true }

// Description names the disk and the instant.
func (d *exportedDisk) Description() string { return d.description }

// WriteAt is refused.
func (*exportedDisk) WriteAt([]byte, int64) (int, error) { return 0, fs.ErrPermission }

// Zero is refused.
func (*exportedDisk) Zero(int64, int64, nbd.ZeroOptions) error { return fs.ErrPermission }

// Trim is refused.
func (*exportedDisk) Trim(int64, int64) error { return fs.ErrPermission }

// Flush has nothing to do.
func (*exportedDisk) Flush() error { return nil }
