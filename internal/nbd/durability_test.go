package nbd_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"vmreplica/internal/nbd"
)

// cached is an export whose writes are durable only after a flush, as the host's page cache is.
type cached struct {
	*memory
	mu      sync.Mutex
	written int // writes that returned, guarded by mu
	durable int // those covered by a flush, guarded by mu
}

func (c *cached) wrote(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written++
	return err
}

func (c *cached) WriteAt(p []byte, off int64) (int, error) {
	n, err := c.memory.WriteAt(p, off)
	return n, c.wrote(err)
}

func (c *cached) Trim(off, n int64) error { return c.wrote(c.memory.Trim(off, n)) }

func (c *cached) Zero(off, n int64, o nbd.ZeroOptions) error {
	return c.wrote(c.memory.Zero(off, n, o))
}

func (c *cached) Flush() error {
	c.mu.Lock()
	covered := c.written
	c.mu.Unlock()
	if err := c.memory.Flush(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable = covered
	return nil
}

func (c *cached) lacks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written - c.durable
}

func TestFUAIsDurableBeforeItsAnswer(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		export := &cached{memory: newMemory(diskSize)}
		c := enter(t, one(t, nbd.Options{}, export), structured)
		for _, r := range []request{
			{command: write, length: 512, payload: make([]byte, 512)}, {command: trim, length: 512},
			{command: zeroes, length: 512}, {command: zeroes, flags: noHole, length: 512},
		} {
			c.do(r)
			if export.lacks() == 0 {
				t.Fatalf("command %d is durable without FUA: the test proves nothing", r.command)
			}
			r.flags |= fua
			if got := c.do(r).err; got != 0 || export.lacks() != 0 {
				t.Errorf("command %d with FUA: answered %d, %d writes are not durable", r.command, got, export.lacks())
			}
		}
	})
}

func TestFlushCoversAllConnections(t *testing.T) {
	export := &cached{memory: newMemory(diskSize)}
	r := one(t, nbd.Options{}, export)
	first, second := enter(t, r, true), enter(t, r, false)
	first.do(request{command: write, length: 512, payload: make([]byte, 512)})
	if got := second.do(request{command: flush}).err; got != 0 || export.lacks() != 0 {
		t.Errorf("answered %d, %d writes are not durable", got, export.lacks())
	}
}

func TestFUAThatIsNotNeededDoesNotFlush(t *testing.T) {
	export := newMemory(diskSize)
	c := enter(t, one(t, nbd.Options{}, export), true)
	for _, command := range []uint16{read, status} {
		if got := c.do(request{command: command, flags: fua, length: 512}).err; got != 0 {
			t.Errorf("command %d is answered %d", command, got)
		}
	}
	if n := export.called("flush"); n != 0 {
		t.Errorf("%d flushes", n)
	}
}

// TestAFailedFlushStays: what it should have made durable may be lost, so nobody is told otherwise later.
func TestAFailedFlushStays(t *testing.T) {
	export := newMemory(diskSize)
	var healed atomic.Bool
	export.before = func(call string) error {
		if call == "flush" && !healed.Load() {
			return syscall.ENOSPC
		}
		return nil
	}
	other := newMemory(diskSize)
	r := serve(t, nbd.Options{}, map[string]nbd.Export{"disk": export, "other": other})
	c := enter(t, r, true)
	if got := c.do(request{command: write, flags: fua, length: 512, payload: make([]byte, 512)}).err; got != eio {
		t.Errorf("a write with FUA is answered %d", got)
	}
	healed.Store(true)
	must(t, c.Close())
	for _, structured := range []bool{true, false} {
		again := enter(t, r, structured)
		if got := again.do(request{command: flush}).err; got != eio {
			t.Errorf("a later flush is answered %d", got)
		}
		if got := again.do(request{command: zeroes, flags: fua, length: 512}).err; got != eio {
			t.Errorf("later zeroes with FUA are answered %d", got)
		}
		if got := again.do(request{command: write, length: 512, payload: make([]byte, 512)}).err; got != 0 {
			t.Errorf("a later write without FUA is answered %d", got)
		}
	}
	if n := export.called("flush"); n != 1 {
		t.Errorf("flushed %d times", n)
	}
	c = dial(t, r)
	c.expectAck(optGo, named("other"), uint16(0))
	if got := c.do(request{command: flush}).err; got != 0 {
		t.Errorf("another export's flush is answered %d", got)
	}
}
