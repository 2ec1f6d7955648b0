package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
)

// serveCommand makes this program the NBD server of one raw image.
const serveCommand = "serve"

// The kinds of serving.
const (
	serveTracked   = "tracked"   // as a primary serves it, with a shipper that reads every epoch
	serveUntracked = "untracked" // the same server, and nothing is marked
)

// The tracked server's copy-before-write, and the time from one cut to the next.
const (
	keepBytes  = 64 * mib
	cutSpacing = 2 * time.Second
)

// plain is an image as an NBD export.
type plain struct{ disk.Image }

func (p *plain) ReadOnly() bool                             { return false }
func (p *plain) Trim(off, n int64) error                    { return p.Unmap(off, n) }
func (p *plain) Zero(off, n int64, _ nbd.ZeroOptions) error { return p.Image.Zero(off, n) }

// serve is the process of one server: it serves the image at path on the socket beside it until its input ends.
func serve(kind, path string) (err error) {
	dir, err := durable.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	file, err := dir.Open(filepath.Base(path), durable.ReadWrite)
	if err != nil {
		return err
	}
	image, err := raw.Open(file, raw.Options{Path: path, Access: imagelock.Write})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	var export nbd.Export = &plain{image}
	closer := image.Close
	if kind == serveTracked {
		live, err := tracked(ctx, dir, image)
		if err != nil {
			return err
		}
		export, closer = live.Export(), live.Close
		group.Go(func() error { return ignoreEnd(ctx, live.ship(ctx)) })
	}
	listener, err := nbd.Listen(path + ".sock")
	if err != nil {
		return errors.Join(err, closer())
	}
	server, err := nbd.NewServer(nbd.Options{Listener: listener, Lookup: func(string) (nbd.Export, error) { return export, nil }})
	if err != nil {
		return errors.Join(err, closer())
	}
	group.Go(func() error { return server.Serve(ctx) })
	fmt.Println("serving")
	_, err = io.Copy(io.Discard, os.Stdin)
	stop()
	return errors.Join(err, group.Wait(), closer())
}

// ignoreEnd is nil for an error of a context that has ended.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// machine is the image as a machine's disk, and what ships it.
type machine struct {
	*tracking.Disk
	group  *tracking.Group
	buffer []byte
}

// tracked opens the image as a machine's disk, with a new log.
func tracked(ctx context.Context, dir durable.Dir, image disk.Image) (*machine, error) {
	live, err := tracking.OpenLive(tracking.LiveOptions{
		ID: "disk", Image: image, Logs: dir, Log: string(replication.NewID()) + ".hrl",
		Known: hrl.Disk{Identity: replication.NewID()}, Lost: func(hrl.Loss) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	m := &machine{live, tracking.NewGroup([]*tracking.Disk{live}, tracking.NewBudget(keepBytes)), make([]byte, mib)}
	if _, err := m.group.Begin(ctx, replication.NewID()); err != nil {
		return nil, errors.Join(err, live.Close())
	}
	return m, nil
}

// ship cuts at the spacing and reads what each epoch holds; a cut that breaks becomes a round.
func (m *machine) ship(ctx context.Context) error {
	tick := time.NewTicker(cutSpacing)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		cut, err := m.group.Cut(ctx, replication.NewID())
		if err == nil {
			err = m.read(cut)
		}
		if errors.Is(err, tracking.ErrBroken) {
			err = m.round(ctx, cut)
		} else if err == nil {
			err = cut.Ack()
		}
		if err != nil {
			return err
		}
	}
}

func (m *machine) round(ctx context.Context, broken *tracking.Epoch) error {
	if err := broken.End(); err != nil {
		return err
	}
	round, err := m.group.Round(ctx)
	if err != nil {
		return err
	}
	return errors.Join(m.read(round), round.End())
}

func (m *machine) read(epoch *tracking.Epoch) error {
	for r, err := range epoch.Extents(0) {
		if err != nil {
			return err
		}
		if err := epoch.ReadAt(0, m.buffer[:r.Length], r.Offset); err != nil {
			return err
		}
		if err := epoch.Sent(0, r.Offset, r.Length); err != nil {
			return err
		}
	}
	return nil
}
