package tracking_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

const (
	childDirectory = "TRACKING_TEST_DIRECTORY"
	killedSize     = 8<<20 + 512
)

// killedDisk is what the owner of the killed agent's disk knows.
var killedDisk = hrl.Disk{
	Identity:  "0123456789abcdef0123456789abcdef",
	Baselines: []replication.ID{"fedcba9876543210fedcba9876543210"},
	Size:      killedSize,
}

func TestMain(m *testing.M) {
	if directory := os.Getenv(childDirectory); directory != "" {
		fmt.Fprintln(os.Stderr, live(directory))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// live is an agent with a machine that writes and a shipper that applies each epoch to a replica at once. It ends by
// being killed, or with what went wrong.
func live(directory string) error {
	dir, err := durable.OpenDir(directory)
	if err != nil {
		return err
	}
	image, err := openRaw(dir, "image")
	if err != nil {
		return err
	}
	replica, err := openRaw(dir, "replica")
	if err != nil {
		return err
	}
	d, err := tracking.OpenLive(tracking.LiveOptions{
		ID: "root", Image: image, Logs: dir, Log: "log", Known: killedDisk,
		Lost: func(loss hrl.Loss) error { return errors.New(loss.String()) },
	})
	if err != nil {
		return err
	}
	if loss := d.Loss(); loss.Cause != hrl.None {
		return errors.New(loss.String())
	}
	failed := make(chan error)
	for range 3 {
		go func() { failed <- scribble(d) }()
	}
	go func() {
		failed <- replicate(tracking.NewGroup([]*tracking.Disk{d}, tracking.NewBudget(1<<20)), replica)
	}()
	return <-failed
}

func openRaw(dir durable.Dir, name string) (*raw.Disk, error) {
	file, err := dir.Open(name, durable.ReadWrite)
	if err != nil {
		return nil, err
	}
	return raw.Open(file, raw.Options{Path: dir.Path(name), Access: imagelock.Write})
}

// scribble writes until it is killed.
func scribble(d *tracking.Disk) error {
	p := make([]byte, 20_000)
	for {
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		off := rand.Int64N(killedSize)
		n := min(1+rand.Int64N(int64(len(p))), killedSize-off)
		var err error
		switch rand.IntN(5) {
		case 0:
			err = d.Zero(off, n, true)
		case 1:
			err = d.Trim(off, n)
		default:
			_, err = d.WriteAt(p[:n], off)
		}
		if err != nil {
			return err
		}
	}
}

// replicate ships epochs until it is killed, and says when one was acknowledged.
func replicate(g *tracking.Group, replica disk.Disk) error {
	for number := 0; ; number++ {
		start := func(ctx context.Context) (*tracking.Epoch, error) { return g.Cut(ctx, replication.NewID()) }
		if number%3 == 0 {
			start = g.Round
		}
		e, err := start(context.Background())
		if err != nil {
			return err
		}
		err = apply(e, replica)
		if err == nil && number%3 != 0 {
			err = e.Ack()
		} else if err == nil || errors.Is(err, tracking.ErrBroken) {
			err = e.End()
		}
		if errors.Is(err, tracking.ErrBroken) {
			err = e.End()
		}
		if err != nil {
			return err
		}
		fmt.Println("shipped")
	}
}

func apply(e *tracking.Epoch, replica disk.Disk) error {
	for r, err := range e.Extents(0) {
		if err != nil {
			return err
		}
		p := make([]byte, r.Length)
		if err := e.ReadAt(0, p, r.Offset); err != nil {
			return err
		}
		if _, err := replica.WriteAt(p, r.Offset); err != nil {
			return err
		}
		if err := e.Sent(0, r.Offset, r.Length); err != nil {
			return err
		}
	}
	return nil
}

func TestAKilledAgentLeavesNoChangedBlockClean(t *testing.T) {
	directory := t.TempDir()
	for _, name := range []string{"image", "replica"} {
		must(t, os.WriteFile(filepath.Join(directory, name), nil, 0o600))
		must(t, os.Truncate(filepath.Join(directory, name), killedSize))
	}
	dir, err := durable.OpenDir(directory)
	must(t, err)
	defer dir.Close()
	log, err := hrl.Create(dir, "log", killedDisk)
	must(t, err)
	must(t, log.Begin(killedDisk.Baselines[0]))
	must(t, log.Abandon())
	random := rand.New(rand.NewPCG(1, 2))
	const kills = 25
	underWay := 0
	for kill := range kills {
		killAfter(t, directory, 1+random.IntN(6), time.Duration(random.IntN(10_000))*time.Microsecond)
		if checkKilled(t, dir, kill) > 0 {
			underWay++
		}
	}
	if underWay < kills/2 {
		t.Errorf("only %d of %d kills found a replica that was behind", underWay, kills)
	}
}

// killAfter runs an agent and kills it so long after it has shipped so often.
func killAfter(t *testing.T, directory string, shipped int, then time.Duration) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDirectory+"="+directory)
	var complaint strings.Builder
	child.Stderr = &complaint
	output, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(output)
	for range shipped {
		if !lines.Scan() {
			child.Wait()
			t.Fatalf("the agent ended: %s", &complaint)
		}
	}
	<-time.After(then)
	must(t, child.Process.Kill())
	for lines.Scan() {
	}
	child.Wait()
	if complaint.Len() > 0 {
		t.Fatal(&complaint)
	}
}

// checkKilled compares what a killed agent left: each block that differs is marked. It answers how many there are.
func checkKilled(t *testing.T, dir durable.Dir, kill int) (differing int) {
	t.Helper()
	image, err := os.ReadFile(dir.Path("image"))
	must(t, err)
	replica, err := os.ReadFile(dir.Path("replica"))
	must(t, err)
	log, err := hrl.Open(dir, "log", killedDisk)
	must(t, err)
	defer log.Abandon()
	if loss := log.Loss(); loss.Cause != hrl.None {
		t.Fatalf("kill %d: %v", kill, loss)
	}
	must(t, log.Flip())
	for at := int64(0); at < killedSize; at += hrl.BlockSize {
		end := min(at+hrl.BlockSize, killedSize)
		if bytes.Equal(image[at:end], replica[at:end]) {
			continue
		}
		differing++
		if is, err := log.Marked(at, 1); err != nil || !is {
			t.Fatalf("kill %d: block %d changed and is clean, %v", kill, at/hrl.BlockSize, err)
		}
	}
	must(t, log.Restore())
	return differing
}
