package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"vmreplica/internal/disk"
	"vmreplica/internal/nbd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// memory is an export in a slice. before is called ahead of each call with its name, such as "write", and may wait
// or fail it.
type memory struct {
	mu       sync.Mutex
	data     []byte
	calls    map[string]int
	last     nbd.ZeroOptions
	readOnly bool
	before   func(call string) error
	extents  func(off, n int64) iter.Seq2[disk.Extent, error]
}

func newMemory(size int) *memory {
	return &memory{data: make([]byte, size), calls: map[string]int{}}
}

func (m *memory) Size() int64 { return int64(len(m.data)) }

func (m *memory) ReadOnly() bool { return m.readOnly }

func (m *memory) Description() string { return fmt.Sprintf("%d bytes in memory", len(m.data)) }

func (m *memory) call(name string, do func()) error {
	m.mu.Lock()
	m.calls[name]++
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
	return nil
}

// called is how often a call was made, "" for all.
func (m *memory) called(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name != "" {
		return m.calls[name]
	}
	sum := 0
	for _, n := range m.calls {
		sum += n
	}
	return sum
}

// change sets fields while the export is served.
func (m *memory) change(do func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do()
}

// content is a copy of the data.
func (m *memory) content() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.data)
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	err := m.call("read", func() { copy(p, m.data[off:]) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	err := m.call("write", func() { copy(m.data[off:], p) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *memory) Zero(off, n int64, o nbd.ZeroOptions) error {
	return m.call("zero", func() { clear(m.data[off : off+n]); m.last = o })
}

func (m *memory) Trim(off, n int64) error {
	return m.call("trim", func() { clear(m.data[off : off+n]) })
}

func (m *memory) Flush() error { return m.call("flush", func() {}) }

func (m *memory) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	m.mu.Lock()
	extents := m.extents
	m.mu.Unlock()
	if extents != nil {
		return extents(off, n)
	}
	return func(yield func(disk.Extent, error) bool) {
		if err := m.call("extents", func() {}); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		yield(disk.Extent{Offset: off, Length: n, Kind: disk.Data}, nil)
	}
}

// running is a server under test.
type running struct {
	*nbd.Server
	t      testing.TB
	socket string
	cancel context.CancelFunc
	done   chan error // what Serve returned

	mu   sync.Mutex
	held int // lookups less releases, guarded by mu
}

var errNoExport = errors.New("no such export")

// serve starts a server of exports by name; the empty name is the first argument's default. The test's end stops
// it and checks that it gave every export back.
func serve(t testing.TB, o nbd.Options, exports map[string]nbd.Export) *running {
	t.Helper()
	r := &running{t: t, socket: filepath.Join(t.TempDir(), "nbd.sock"), done: make(chan error, 1)}
	if o.Listener == nil {
		o.Listener = listen(t, r.socket)
	}
	if o.Lookup == nil {
		o.Lookup = func(name string) (nbd.Export, error) {
			if e, found := exports[name]; found {
				r.count(1)
				return e, nil
			}
			return nil, errNoExport
		}
	}
	o.Release = func(nbd.Export) { r.count(-1) }
	var err error
	r.Server, err = nbd.NewServer(o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- r.Serve(ctx) }()
	t.Cleanup(r.stop)
	return r
}

func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func (r *running) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held += n
}

// stop ends the server and waits for it.
func (r *running) stop() {
	r.cancel()
	if err := r.ended(); err != nil {
		r.t.Errorf("serve: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != 0 {
		r.t.Errorf("%d exports were not released", r.held)
	}
}

// ended waits until Serve returned.
func (r *running) ended() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(patience):
		return errors.New("the server does not end")
	}
}

// one serves a single export under the empty name and "disk".
func one(t testing.TB, o nbd.Options, export nbd.Export) *running {
	t.Helper()
	return serve(t, o, map[string]nbd.Export{"": export, "disk": export})
}

func temporary(t testing.TB, name string) string { return filepath.Join(t.TempDir(), name) }
