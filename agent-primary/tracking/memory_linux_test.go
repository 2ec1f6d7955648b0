package tracking_test

import (
	"iter"
	"slices"
	"sync"
	"syscall"
	"testing"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// memory is an image in memory. A hook may hold a change up or fail it.
type memory struct {
	mu    sync.RWMutex
	bytes []byte
	stamp disk.Stamp
	// before is called before each change and each flush, outside mu, with what it is.
	before func(what string, off, n int64) error
}

func newMemory(size int64) *memory { return &memory{bytes: make([]byte, size)} }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	if m.before != nil {
		if err := m.before("read", off, int64(len(p))); err != nil {
			return 0, err
		}
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return copy(p, m.bytes[off:]), nil
}

func (m *memory) change(what string, off, n int64, do func(p []byte)) error {
	if m.before != nil {
		if err := m.before(what, off, n); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	do(m.bytes[off : off+n])
	m.stamp.ModifiedNanoseconds++
	return nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	err := m.change("write", off, int64(len(p)), func(to []byte) { copy(to, p) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func zeroed(p []byte) { clear(p) }

func (m *memory) Zero(off, n int64) error       { return m.change("zero", off, n, zeroed) }
func (m *memory) Unmap(off, n int64) error      { return m.change("unmap", off, n, zeroed) }
func (m *memory) Size() int64                   { return int64(len(m.bytes)) }
func (m *memory) LogicalSectorSize() int        { return 512 }
func (m *memory) Close() error                  { return nil }
func (m *memory) AllocatedBytes() (int64, bool) { return 0, false }

func (m *memory) Flush() error {
	if m.before != nil {
		return m.before("flush", 0, 0)
	}
	return nil
}

func (m *memory) Stamp() (disk.Stamp, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.stamp, nil
}

func (m *memory) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		yield(disk.Extent{Offset: off, Length: n, Kind: disk.Data}, nil)
	}
}

func (m *memory) snapshot() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clone(m.bytes)
}

// rig is a group of disks in memory with their logs in a directory.
type rig struct {
	t      testing.TB
	dir    durable.Dir
	logs   durable.Dir // what the disks use: dir, or something that fails in front of it
	known  []hrl.Disk
	images []*memory
	disks  []*tracking.Disk
	budget *tracking.Budget
	group  *tracking.Group

	mu     sync.Mutex
	losses []hrl.Loss
	// unable is what the owner's records answer.
	unable error
}

const ample = 64 << 20

func newRig(t testing.TB, budget int64, sizes ...int64) *rig {
	t.Helper()
	dir, err := durable.OpenDir(t.TempDir())
	must(t, err)
	r := &rig{t: t, dir: dir, logs: dir, budget: tracking.NewBudget(budget)}
	t.Cleanup(func() { must(t, dir.Close()) })
	for _, size := range sizes {
		r.images = append(r.images, newMemory(size))
		r.known = append(r.known, hrl.Disk{Identity: replication.NewID()})
	}
	r.open()
	must(t, r.begin())
	return r
}

func name(i int) string { return string(rune('a'+i)) + ".hrl" }

// open opens every disk anew, as an agent does when it starts.
func (r *rig) open() {
	r.t.Helper()
	r.disks, r.budget = nil, tracking.NewBudget(r.budget.Limit())
	for i, image := range r.images {
		d, err := tracking.OpenLive(tracking.LiveOptions{
			ID: name(i), Image: image, Logs: r.logs, Log: name(i), Known: r.known[i], Lost: r.lost,
		})
		must(r.t, err)
		r.known[i].Opened = d.Opened()
		r.disks = append(r.disks, d)
	}
	r.group = tracking.NewGroup(r.disks, r.budget)
}

func (r *rig) begin() error {
	baseline := replication.NewID()
	_, err := r.group.Begin(r.t.Context(), baseline)
	for i := range r.known {
		r.known[i].Baselines = []replication.ID{baseline}
	}
	return err
}

func (r *rig) lost(loss hrl.Loss) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unable == nil {
		r.losses = append(r.losses, loss)
	}
	return r.unable
}

// kill leaves the logs as a killed agent does.
func (r *rig) kill() {
	for _, d := range r.disks {
		must(r.t, d.Kill())
	}
}

func (r *rig) close() {
	for _, d := range r.disks {
		must(r.t, d.Close())
	}
}

// marks are the blocks of a disk that an agent would find marked if this one were killed now.
func (r *rig) marks(i int) map[int64]bool {
	r.t.Helper()
	return marksOf(r.t, r.dir.Path(name(i)), r.known[i], r.images[i].Size())
}

// cut is a cut, or the end of the test.
func (r *rig) cut() *tracking.Epoch {
	r.t.Helper()
	e, err := r.group.Cut(r.t.Context(), replication.NewID())
	must(r.t, err)
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errIO, errSpace = error(syscall.EIO), error(syscall.ENOSPC)
