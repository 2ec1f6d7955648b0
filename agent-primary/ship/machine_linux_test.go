package ship_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmreplica/agent-primary/ship"
	"vmreplica/agent-primary/tracking"
	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/raw"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ample = 64 << 20
	// credit is what a real replica gives.
	credit = 8 << 20
)

// failing is an image whose reads or writes may fail, or wait.
type failing struct {
	disk.Image
	reads, writes atomic.Bool
	holding       atomic.Pointer[held]
}

// held is an image whose next write waits.
type held struct{ entered, release chan struct{} }

func (f *failing) hold() *held {
	h := &held{make(chan struct{}), make(chan struct{})}
	f.holding.Store(h)
	return h
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.reads.Load() {
		return 0, syscall.EIO
	}
	return f.Image.ReadAt(p, off)
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if h := f.holding.Swap(nil); h != nil {
		close(h.entered)
		<-h.release
	}
	if f.writes.Load() {
		return 0, syscall.EIO
	}
	return f.Image.WriteAt(p, off)
}

// machine is a running machine's disks over files, and its replica.
type machine struct {
	t       testing.TB
	paths   []string
	images  []*failing
	disks   []*tracking.Disk
	budget  *tracking.Budget
	group   *tracking.Group
	replica *replica
	limits  ship.Limits
	// progress is of all shipments.
	progress ship.Progress
	churn    func(ship.Churn)
}

func newMachine(t testing.TB, budget int64, sizes ...int64) *machine {
	t.Helper()
	directory := t.TempDir()
	dir, err := durable.OpenDir(directory)
	must(t, err)
	m := &machine{t: t, budget: tracking.NewBudget(budget), limits: ship.Limits{FrameBytes: 64 << 10, Workers: 2}}
	held := map[string]int64{}
	for i, size := range sizes {
		id := string(rune('a' + i))
		path := filepath.Join(directory, id)
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, os.Truncate(path, size))
		file, err := dir.Open(id, durable.ReadWrite)
		must(t, err)
		image, err := raw.Open(file, raw.Options{Path: path, Access: imagelock.Write})
		must(t, err)
		m.images = append(m.images, &failing{Image: image})
		d, err := tracking.OpenLive(tracking.LiveOptions{
			ID: id, Image: m.images[i], Logs: dir, Log: id + ".hrl", Known: hrl.Disk{Identity: replication.NewID()},
			Lost: func(hrl.Loss) error { return nil },
		})
		must(t, err)
		m.disks, m.paths, held[id] = append(m.disks, d), append(m.paths, path), size
	}
	m.group = tracking.NewGroup(m.disks, m.budget)
	_, err = m.group.Begin(t.Context(), replication.NewID())
	must(t, err)
	m.replica = newReplica(t, credit, held)
	t.Cleanup(func() {
		for _, d := range m.disks {
			must(t, d.Close())
		}
		must(t, dir.Close())
	})
	return m
}

// options are those of a shipment under a cut's name.
func (m *machine) options(cut replication.ID) ship.Options {
	o := ship.Options{
		Transfer: replication.NewID(), Cut: cut, Proof: blockdiff.BLAKE3, Group: m.group, Limits: m.limits,
		Progress: &m.progress, Churn: m.churn,
	}
	m.replica.mu.Lock()
	defer m.replica.mu.Unlock()
	for _, d := range m.disks {
		o.Disks = append(o.Disks, ship.Disk{ID: d.ID(), Session: m.replica.disks[d.ID()].session})
	}
	return o
}

// try is a cycle up to its commit.
func (m *machine) try(ctx context.Context) (ship.Outcome, error) {
	cut := replication.NewID()
	outcome, err := ship.CatchUp(ctx, m.replica, m.options(cut))
	if err != nil {
		m.replica.discard()
		return outcome, err
	}
	m.replica.commit(cut, outcome)
	must(m.t, outcome.Epoch.Ack())
	return outcome, nil
}

// cycle is a cycle that goes through.
func (m *machine) cycle() ship.Outcome {
	m.t.Helper()
	outcome, err := m.try(m.t.Context())
	must(m.t, err)
	return outcome
}

// equal fails the test unless the replica holds what the disks do; the machine does not write.
func (m *machine) equal() {
	m.t.Helper()
	if at := m.difference(); at != "" {
		m.t.Fatalf("the replica differs at %s", at)
	}
}

func (m *machine) difference() string {
	m.t.Helper()
	for i, d := range m.disks {
		content, err := os.ReadFile(m.paths[i])
		must(m.t, err)
		if at := m.replica.differs(d.ID(), content); at >= 0 {
			return fmt.Sprintf("byte %d of disk %s", at, d.ID())
		}
	}
	return ""
}

// write writes random content.
func (m *machine) write(index int, off, n int64) {
	m.t.Helper()
	_, err := m.disks[index].WriteAt(noise(n), off)
	must(m.t, err)
}

func noise(n int64) []byte {
	p := make([]byte, n)
	stream := rand.NewChaCha8([32]byte{byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
	_, _ = stream.Read(p) // which always fills it
	return p
}

// program is one of the machine's programs. It owns a range of every disk, whose bounds lie within blocks, and knows what
// the ranges held after each of its operations: what a cut holds of them is one of these.
type program struct {
	m       *machine
	random  *rand.Rand
	off, n  int64
	model   [][]byte
	mu      sync.Mutex
	history map[[32]byte]int
	done    int
}

func (m *machine) program(seed uint64, off, n int64) *program {
	p := &program{m: m, random: rand.New(rand.NewPCG(seed, 5)), off: off, n: n, history: map[[32]byte]int{}}
	for range m.disks {
		p.model = append(p.model, make([]byte, n))
	}
	p.note()
	return p
}

// note remembers the state after the present operation.
func (p *program) note() {
	sum := sha256.New()
	for _, content := range p.model {
		sum.Write(content)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history[[32]byte(sum.Sum(nil))] = p.done
	p.done++
}

// operations is how many the program has done.
func (p *program) operations() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// held is the operation after which the disks held what the replica does; false for none.
func (p *program) held() (int, bool) {
	sum := sha256.New()
	p.m.replica.mu.Lock()
	for _, d := range p.m.disks {
		sum.Write(p.m.replica.disks[d.ID()].committed[p.off : p.off+p.n])
	}
	p.m.replica.mu.Unlock()
	for range 1000 { // an operation is noted a moment after the disk has it
		p.mu.Lock()
		which, known := p.history[[32]byte(sum.Sum(nil))]
		p.mu.Unlock()
		if known {
			return which, true
		}
		time.Sleep(time.Millisecond)
	}
	return 0, false
}

// step is one operation on one disk, of any alignment, each disk after the other.
func (p *program) step() error {
	d, model := p.m.disks[p.done%len(p.m.disks)], p.model[p.done%len(p.m.disks)]
	at := p.random.Int64N(p.n)
	n := min(1+p.random.Int64N(1<<(1+p.random.IntN(15))), p.n-at)
	var err error
	switch p.random.IntN(6) {
	case 0:
		clear(model[at : at+n])
		err = d.Zero(p.off+at, n, p.random.IntN(2) == 0)
	case 1:
		if err = d.Trim(p.off+at, n); err == nil { // which may leave frozen blocks as they are
			_, err = d.ReadAt(model[at:at+n], p.off+at)
		}
	default:
		content := noise(n)
		copy(model[at:], content)
		_, err = d.WriteAt(content, p.off+at)
	}
	p.note()
	return err
}
