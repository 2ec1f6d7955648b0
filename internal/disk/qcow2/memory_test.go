package qcow2_test

import (
	"io"
	"maps"
	"sync"

	"vmreplica/internal/durable"
)

// memory is a sparse durable.File. What it holds can be copied, and what is done to it watched.
type memory struct {
	mu     sync.Mutex
	size   int64
	pages  map[int64][]byte // never changed in place
	closed bool
	// watch, when set, is told of everything before it is done, and may refuse it.
	watch func(op) error
}

// op is one change of a file; a Sync has neither data nor length.
type op struct {
	kind   opKind
	off, n int64
	data   []byte
}

type opKind int

const (
	opWrite opKind = iota
	opTruncate
	opPunch
	opSync
)

func newMemory() *memory { return &memory{pages: make(map[int64][]byte)} }

func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memory{size: m.size, pages: maps.Clone(m.pages)}
}

func (m *memory) do(o op) error {
	if m.watch != nil {
		if err := m.watch(o); err != nil {
			return err
		}
	}
	m.apply(o)
	return nil
}

func (m *memory) apply(o op) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch o.kind {
	case opWrite:
		m.put(o.off, o.data)
		m.size = max(m.size, o.off+int64(len(o.data)))
	case opTruncate:
		m.size = o.n
	case opPunch:
		m.put(o.off, make([]byte, o.n))
	case opSync:
	}
}

func (m *memory) put(off int64, data []byte) {
	for len(data) > 0 {
		index, in := off/grain, off%grain
		n := min(int64(len(data)), grain-in)
		page := make([]byte, grain)
		copy(page, m.pages[index])
		copy(page[in:], data[:n])
		m.pages[index] = page
		off, data = off+n, data[n:]
	}
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off >= m.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), m.size-off))
	for done := 0; done < n; {
		at := off + int64(done)
		part := p[done:min(n, done+int(grain-at%grain))]
		clear(part)
		if page := m.pages[at/grain]; page != nil {
			copy(part, page[at%grain:])
		}
		done += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if err := m.do(op{kind: opWrite, off: off, data: append([]byte(nil), p...)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *memory) Sync() error                { return m.do(op{kind: opSync}) }
func (m *memory) Truncate(size int64) error  { return m.do(op{kind: opTruncate, n: size}) }
func (m *memory) Punch(off, n int64) error   { return m.do(op{kind: opPunch, off: off, n: n}) }
func (m *memory) ZeroRange(_, _ int64) error { return nil }
func (m *memory) Allocate(_, _ int64) error  { return nil }
func (m *memory) Fd() (uintptr, bool)        { return 0, false }

func (m *memory) SeekData(off int64) (start, end int64, err error) { return off, m.size, nil }

func (m *memory) Size() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.size, nil
}

func (m *memory) Close() error {
	m.closed = true
	return nil
}

var _ durable.File = (*memory)(nil)
