package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"vmreplica/internal/nbd"
)

// gate holds the calls of an export until it opens.
type gate struct {
	entered chan string
	open    chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan string, 1000), open: make(chan struct{})} }

func (g *gate) before(call string) error {
	g.entered <- call
	<-g.open
	return nil
}

func (g *gate) await(t *testing.T) {
	t.Helper()
	select {
	case <-g.entered:
	case <-time.After(patience):
		t.Fatal("the export is not called")
	}
}

func TestRequestsRunBesideEachOtherAndAreAnsweredAsTheyEnd(t *testing.T) {
	export := newMemory(diskSize)
	held := newGate()
	var slow atomic.Bool
	slow.Store(true)
	export.before = func(call string) error {
		if call == "write" && slow.Swap(false) {
			return held.before(call)
		}
		return nil
	}
	c := enter(t, one(t, nbd.Options{}, export), true)
	c.put(request{command: write, cookie: 1, length: 512, payload: make([]byte, 512)}.packed())
	held.await(t)
	c.inStep()
	close(held.open)
	if got := c.receive(0); got.cookie != 1 || got.err != 0 {
		t.Errorf("answered %d to %d", got.err, got.cookie)
	}
}

func TestNoMoreRequestsThanAllowedAreInFlight(t *testing.T) {
	export := newMemory(diskSize)
	held := newGate()
	export.before = held.before
	c := enter(t, one(t, nbd.Options{MaxRequests: 3}, export), true)
	for i := range 10 {
		c.put(request{command: trim, cookie: uint64(i), length: 512}.packed())
	}
	for range 3 {
		held.await(t)
	}
	if n := export.called("trim"); n != 3 {
		t.Errorf("%d requests run", n)
	}
	close(held.open)
	for range 10 {
		if got := c.receive(0); got.err != 0 {
			t.Errorf("answered %d", got.err)
		}
	}
}

func TestDiscEndsTheConnectionAfterWhatWasAdmitted(t *testing.T) {
	export := newMemory(diskSize)
	held := newGate()
	export.before = held.before
	c := enter(t, one(t, nbd.Options{}, export), true)
	late := request{command: write, cookie: 3, length: 512, payload: bytes.Repeat([]byte{1}, 512)}
	c.put(request{command: trim, cookie: 1, length: 512}.packed(), request{command: disc, cookie: 2}.packed(), late.packed())
	held.await(t)
	close(held.open)
	if got := c.receive(0); got.cookie != 1 || got.err != 0 {
		t.Errorf("answered %d to %d", got.err, got.cookie)
	}
	c.closed()
	if n := export.called("write"); n != 0 {
		t.Error("a request after DISC was done")
	}
}

// TestAConversationCutAtEveryByte: whatever of it arrived, a write is done whole or not at all, and the server and
// its other connections go on.
func TestAConversationCutAtEveryByte(t *testing.T) {
	payload := bytes.Repeat([]byte{0x77}, 600)
	before := pack(uint32(3),
		"IHAVEOPT", uint32(optStructured), uint32(0),
		"IHAVEOPT", uint32(optSetMeta), uint32(len(queries("disk", "base:allocation"))), queries("disk", "base:allocation"),
		"IHAVEOPT", uint32(optGo), uint32(12), named("disk"), uint16(1), uint16(3),
		request{command: write, offset: 512, length: 600, payload: payload}.packed())
	after := pack(request{command: read, length: 4096}.packed(), request{command: disc}.packed())
	whole := append(before, after...)
	export := newMemory(4096)
	r := one(t, nbd.Options{}, export)
	bystander := enter(t, r, true)
	for cut := range len(whole) + 1 {
		gone := connect(t, r) // takes no answer
		gone.put(whole[:cut])
		must(t, gone.Close())

		export.change(func() { clear(export.data) })
		quiet := connect(t, r) // sends no more, and takes all answers
		quiet.put(whole[:cut])
		must(t, quiet.Conn.(*net.UnixConn).CloseWrite())
		_, err := io.Copy(io.Discard, quiet)
		must(t, err)
		want := make([]byte, 4096)
		if cut >= len(before) {
			copy(want[512:], payload)
		}
		if !bytes.Equal(export.content(), want) {
			t.Fatalf("after %d of %d bytes the export holds something else", cut, len(whole))
		}
	}
	bystander.inStep()
}

func TestServeEndsWithItsContextAndWaitsForTheExport(t *testing.T) {
	export := newMemory(diskSize)
	held := newGate()
	export.before = held.before
	r := one(t, nbd.Options{}, export)
	busy, idle, shaking := enter(t, r, true), enter(t, r, false), connect(t, r)
	shaking.take(18)
	busy.put(request{command: trim, length: 512}.packed())
	held.await(t)
	r.cancel()
	busy.closed()
	idle.closed()
	shaking.closed()
	select {
	case err := <-r.done:
		t.Errorf("the server ended (%v) while its export was called", err)
		r.done <- err
	default:
	}
	close(held.open)
	must(t, r.ended())
	if err := r.Serve(context.Background()); err == nil {
		t.Error("a server that ended serves again")
	}
}

func TestDrainAnswersWhatWasAdmitted(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		held := newGate()
		export.before = held.before
		r := one(t, nbd.Options{MaxRequests: 2}, export)
		busy, idle, shaking := enter(t, r, structured), enter(t, r, structured), connect(t, r)
		shaking.take(18)
		for cookie := range uint64(4) {
			busy.put(request{command: trim, cookie: cookie, length: 512}.packed())
		}
		held.await(t)
		held.await(t)
		drained := make(chan error, 1)
		go func() { drained <- r.Drain(context.Background()) }()
		idle.closed()
		shaking.closed()
		close(held.open)
		answered := map[uint64]bool{}
		for range 2 {
			got := busy.receive(0)
			answered[got.cookie] = got.err == 0
		}
		busy.closed()
		if !answered[0] || !answered[1] || export.called("trim") != 2 {
			t.Errorf("answered %v, %d calls", answered, export.called("trim"))
		}
		must(t, <-drained)
		must(t, r.ended())
		must(t, r.Drain(context.Background()))
	})
}

func TestDrainCutsWhatDoesNotEndInTime(t *testing.T) {
	export := newMemory(diskSize)
	held := newGate()
	export.before = held.before
	r := one(t, nbd.Options{}, export)
	c := enter(t, r, true)
	c.put(request{command: trim, length: 512}.packed())
	held.await(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drained: %v", err)
	}
	c.closed()
	close(held.open)
	must(t, r.ended())
}

func TestAServerThatWasDrainedFirstDoesNotServe(t *testing.T) {
	server, err := nbd.NewServer(nbd.Options{
		Listener: listen(t, temporary(t, "nbd.sock")),
		Lookup:   func(string) (nbd.Export, error) { return nil, errNoExport },
	})
	must(t, err)
	must(t, server.Drain(context.Background()))
	if err := server.Serve(context.Background()); err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestAListenerThatFailsEndsServe(t *testing.T) {
	listener := listen(t, temporary(t, "nbd.sock"))
	server, err := nbd.NewServer(nbd.Options{
		Listener: listener,
		Lookup:   func(string) (nbd.Export, error) { return nil, errNoExport },
	})
	must(t, err)
	must(t, listener.Close())
	if err := server.Serve(context.Background()); err == nil {
		t.Error("a closed listener is served")
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	lookup := func(string) (nbd.Export, error) { return nil, errNoExport }
	listener := listen(t, temporary(t, "nbd.sock"))
	for _, o := range []nbd.Options{
		{}, {Lookup: lookup}, {Listener: listener},
		{Listener: listener, Lookup: lookup, MaxRequests: -1},
		{Listener: listener, Lookup: lookup, StallTimeout: -time.Second},
	} {
		if _, err := nbd.NewServer(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
