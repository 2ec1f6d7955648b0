// Command tracker is the tracking half of a primary agent, with a replica beside it in place of the other host: it serves
// the images of a directory to a guest and does what its standard input says, a word a line. Built with the tag faults,
// so that tests may leave steps out.
//
// Words: begin compares nothing and copies everything, from the running disks, and then does what round
// does; round ships a round and then a cut; cut ships a cut; abort ships a cut and loses it. Each is answered with a line that names the last cut, or with what went wrong.
//
// In the directory, for NAME of the arguments: NAME.raw is the image, NAME.replica the replica, NAME.hrl the log, and
// state what an owner must remember. After a kill the next tracker goes on.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/fault"
	"vmreplica/internal/hrl"
	"vmreplica/internal/nbd"
	"vmreplica/internal/replication"
)

// budget is the memory for copy-before-write, in bytes.
const budget = 64 << 20

// tracker is the program.
type tracker struct {
	dir   durable.Dir
	known map[string]*hrl.Disk

	disks    []*tracking.Disk
	group    *tracking.Group
	replicas []*os.File
}

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func run(path string, names []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	t, err := open(path, names)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- t.serve(ctx) }()
	words := bufio.NewScanner(os.Stdin)
	for words.Scan() {
		cut, err := t.do(ctx, words.Text())
		if err != nil {
			return err
		}
		fmt.Println("cut", cut)
	}
	stop()
	err = <-served
	for _, d := range t.disks {
		err = errors.Join(err, d.Close())
	}
	return err
}

func open(path string, names []string) (*tracker, error) {
	dir, err := durable.OpenDir(path)
	if err != nil {
		return nil, err
	}
	t := &tracker{dir: dir, known: map[string]*hrl.Disk{}}
	state, err := os.ReadFile(dir.Path("state"))
	if err == nil {
		err = json.Unmarshal(state, &t.known)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for _, name := range names {
		if err := t.attach(name); err != nil {
			return nil, err
		}
	}
	t.group = tracking.NewGroup(t.disks, tracking.NewBudget(budget))
	return t, t.save()
}

func (t *tracker) attach(name string) error {
	file, err := t.dir.Open(name+".raw", durable.ReadWrite)
	if err != nil {
		return err
	}
	image, err := raw.Open(file, raw.Options{Path: t.dir.Path(name + ".raw"), Access: imagelock.Write})
	if err != nil {
		return err
	}
	if t.known[name] == nil {
		t.known[name] = &hrl.Disk{Identity: replication.NewID()}
	}
	d, err := tracking.OpenLive(tracking.LiveOptions{
		ID: name, Image: image, Logs: t.dir, Log: name + ".hrl", Known: *t.known[name],
		Lost: func(hrl.Loss) error { return nil }, // which is said when the disks are served
	})
	if err != nil {
		return err
	}
	replica, err := os.OpenFile(t.dir.Path(name+".replica"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	t.known[name].Opened = d.Opened()
	t.disks, t.replicas = append(t.disks, d), append(t.replicas, replica)
	return replica.Truncate(d.Size())
}

func (t *tracker) save() error {
	state, err := json.Marshal(t.known)
	if err != nil {
		return err
	}
	return os.WriteFile(t.dir.Path("state"), state, 0o600)
}

// serve serves the disks by their names.
func (t *tracker) serve(ctx context.Context) error {
	socket := t.dir.Path("nbd.sock")
	_ = os.Remove(socket) // of a tracker that was killed
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	defer listener.Close()
	server, err := nbd.NewServer(nbd.Options{Listener: listener, Lookup: func(name string) (nbd.Export, error) {
		for _, d := range t.disks {
			if d.ID() == name {
				return d.Export(), nil
			}
		}
		return nil, errors.New("no such disk")
	}})
	if err != nil {
		return err
	}
	var losses []hrl.Loss
	for _, d := range t.disks {
		losses = append(losses, d.Loss())
	}
	fmt.Println("serving", losses)
	return server.Serve(ctx)
}

func (t *tracker) do(ctx context.Context, word string) (replication.ID, error) {
	switch word {
	case "begin":
		if err := t.begin(ctx); err != nil {
			return "", err
		}
		return t.round(ctx)
	case "round":
		return t.round(ctx)
	case "cut":
		return t.cut(ctx, nil, true)
	case "abort":
		return t.cut(ctx, nil, false)
	}
	return "", fmt.Errorf("%q is no word", word)
}

// begin is a resync's: all is copied while the guest writes.
func (t *tracker) begin(ctx context.Context) error {
	baseline := replication.NewID()
	if _, err := t.group.Begin(ctx, baseline); err != nil {
		return err
	}
	for i, d := range t.disks {
		t.known[d.ID()].Baselines = []replication.ID{baseline}
		p := make([]byte, 1<<20)
		for at := int64(0); at < d.Size(); at += int64(len(p)) {
			p = p[:min(int64(len(p)), d.Size()-at)]
			if _, err := d.ReadAt(p, at); err != nil {
				return err
			}
			if _, err := t.replicas[i].WriteAt(p, at); err != nil {
				return err
			}
		}
	}
	return t.save()
}

// piece is content that is received and not committed.
type piece struct {
	disk int
	off  int64
	p    []byte
}

// slowly is how long the shipper waits after each range, so that the guest writes to what is not sent yet.
const slowly = 4 * time.Millisecond

// round ships a round and then a cut.
func (t *tracker) round(ctx context.Context) (replication.ID, error) {
	round, err := t.group.Round(ctx)
	if err != nil {
		return "", err
	}
	received, err := t.ship(round, nil)
	if err := errors.Join(err, round.End()); err != nil {
		return "", err
	}
	return t.cut(ctx, received, true)
}

// cut ships a cut after what was received before it, and commits both or loses them.
func (t *tracker) cut(ctx context.Context, received []piece, commit bool) (replication.ID, error) {
	e, err := t.group.Cut(ctx, replication.NewID())
	if err != nil {
		return "", err
	}
	if received, err = t.ship(e, received); err != nil {
		return "", err
	}
	if !commit {
		return e.ID, e.Abort()
	}
	for _, r := range received {
		if _, err := t.replicas[r.disk].WriteAt(r.p, r.off); err != nil {
			return "", err
		}
	}
	return e.ID, e.Ack()
}

func (t *tracker) ship(e *tracking.Epoch, received []piece) ([]piece, error) {
	for i := range t.disks {
		for r, err := range e.Extents(i) {
			if err != nil {
				return nil, err
			}
			time.Sleep(slowly)
			p := make([]byte, r.Length)
			if err := e.ReadAt(i, p, r.Offset); err != nil {
				return nil, err
			}
			if !fault.Enabled("drop-delta") || len(received)%8 != 7 {
				received = append(received, piece{i, r.Offset, p})
			} else {
				received = append(received, piece{disk: i})
			}
			if err := e.Sent(i, r.Offset, r.Length); err != nil {
				return nil, err
			}
		}
	}
	return received, nil
}
