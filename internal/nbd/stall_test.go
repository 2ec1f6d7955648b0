package nbd_test

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"vmreplica/internal/nbd"
)

const (
	smallBudget = 1 << 20
	bigSize     = 64 << 20
)

// stalled are clients that hold the whole small budget and stand still: one within a payload, one that takes no
// reply.
var stalled = map[string]func(*client){
	"a payload that does not come": func(c *client) {
		c.put(request{command: write, length: smallBudget, payload: []byte{1}}.packed())
	},
	"replies that are not taken": func(c *client) {
		for range 2 {
			c.put(request{command: read, length: smallBudget}.packed())
		}
	},
}

// TestAStalledClientIsCutOffWhenOthersNeedItsMemory: until then they go on with small requests, afterwards with
// large ones.
func TestAStalledClientIsCutOffWhenOthersNeedItsMemory(t *testing.T) {
	for name, stall := range stalled {
		t.Run(name, func(t *testing.T) {
			export := newMemory(bigSize)
			r := one(t, nbd.Options{MaxInFlightBytes: smallBudget, StallTimeout: 50 * time.Millisecond}, export)
			idler, other := enter(t, r, true), enter(t, r, true)
			stall(idler)
			for range 20 {
				if got := other.do(request{command: write, length: 4096, payload: make([]byte, 4096)}).err; got != 0 {
					t.Fatalf("a small write beside it is answered %d", got)
				}
			}
			large := request{command: write, length: smallBudget, payload: make([]byte, smallBudget)}
			if got := other.do(large).err; got != 0 {
				t.Errorf("a large write beside it is answered %d", got)
			}
			n, _ := io.Copy(io.Discard, idler)
			if n >= 2*smallBudget {
				t.Errorf("the client that stood still got %d bytes", n)
			}
			other.inStep()
		})
	}
}

// TestASlowClientIsWaitedForWhileNobodyNeedsItsMemory: a payload in pieces over many times the timeout arrives.
func TestASlowClientIsWaitedForWhileNobodyNeedsItsMemory(t *testing.T) {
	export := newMemory(diskSize)
	c := enter(t, one(t, nbd.Options{StallTimeout: time.Millisecond}, export), true)
	payload := bytes.Repeat([]byte{9}, 4096)
	c.put(request{command: write, length: 4096, payload: payload[:1]}.packed())
	for i := 1; i < len(payload); i += 455 {
		time.Sleep(5 * time.Millisecond) // slower than allowed where others wait
		c.put(payload[i : i+455])
	}
	if got := c.receive(0); got.err != 0 || !bytes.Equal(export.content()[:4096], payload) {
		t.Errorf("answered %d", got.err)
	}
	c.inStep()
}

// TestMemoryIsBounded: connections that each ask for far more than there is hold no more than there is.
func TestMemoryIsBounded(t *testing.T) {
	const limit = 8 << 20
	export := newMemory(bigSize)
	r := one(t, nbd.Options{MaxInFlightBytes: limit, StallTimeout: time.Hour}, export)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	clients := make([]*client, 8)
	for i := range clients {
		clients[i] = enter(t, r, true)
		for range 32 {
			clients[i].put(request{command: read, length: 1 << 20}.packed())
		}
	}
	for _, c := range clients {
		must(t, c.Conn.(*net.UnixConn).CloseWrite())
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 3*limit {
		t.Errorf("%d MiB are held, the limit is %d", grown>>20, limit>>20)
	}
	var takers sync.WaitGroup
	for i, c := range clients {
		takers.Go(func() {
			n, err := io.Copy(io.Discard, c)
			if want := int64(32 * (1<<20 + 28)); err != nil || n != want {
				t.Errorf("client %d got %d bytes (%v), want %d", i, n, err, want)
			}
		})
	}
	takers.Wait()
}
