package e2e_test

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// proxy stands between the primary and the replica and does to their connections what networks do.
type proxy struct {
	t        *testing.T
	listener net.Listener
	to       string
	// budget is how many bytes to the replica pass until the connection is cut; below 0 none is.
	budget atomic.Int64
	// silent swallows everything, both ways, as a firewall that forgot a connection does.
	silent atomic.Bool
	// piece is how much passes at a time, 0 as it comes.
	piece atomic.Int64
	cuts  atomic.Int64

	mu    sync.Mutex
	open  map[net.Conn]bool // guarded by mu
	tasks sync.WaitGroup
}

// behindProxy makes the primary reach the replica through a proxy.
func behindProxy(into **proxy) func(*pair) {
	return func(p *pair) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		proxy := &proxy{t: p.t, listener: listener, to: p.replica.address, open: map[net.Conn]bool{}}
		proxy.budget.Store(-1)
		proxy.tasks.Go(proxy.accept)
		p.t.Cleanup(func() {
			listener.Close()
			proxy.cutAll()
			proxy.tasks.Wait()
		})
		p.reached = listener.Addr().String()
		*into = proxy
	}
}

func (p *proxy) accept() {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", p.to)
		if err != nil {
			from.Close()
			continue
		}
		p.mu.Lock()
		p.open[from], p.open[to] = true, true
		p.mu.Unlock()
		p.tasks.Go(func() { p.carry(to, from, true) })
		p.tasks.Go(func() { p.carry(from, to, false) })
	}
}

// carry moves bytes one way until the connection ends or is cut.
func (p *proxy) carry(to, from net.Conn, counted bool) {
	defer p.forget(to, from)
	buffer := make([]byte, 32<<10)
	for {
		limit := len(buffer)
		if piece := p.piece.Load(); piece > 0 {
			limit = int(piece)
		}
		n, err := from.Read(buffer[:limit])
		if p.silent.Load() {
			if err != nil {
				return
			}
			continue
		}
		if counted && p.budget.Load() >= 0 {
			if left := p.budget.Add(-int64(n)); left < 0 {
				n = max(0, n+int(left))
				_, _ = to.Write(buffer[:n])
				p.budget.Store(-1)
				p.cuts.Add(1)
				p.cutAll()
				return
			}
		}
		if _, writeErr := to.Write(buffer[:n]); writeErr != nil || err != nil {
			return
		}
	}
}

func (p *proxy) forget(connections ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range connections {
		c.Close()
		delete(p.open, c)
	}
}

// cutAll cuts every connection at once, without a word.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

func TestConnectionCutAfterBytes(t *testing.T) {
	t.Parallel()
	var link *proxy
	p := newPair(t, behindProxy(&link))
	seed := seed(t)
	random := random(seed)
	p.inStep(96*mib, seed)
	p.limit("32MiB/s")
	rewrite(t, p.image(), 1, random.Uint64())
	primary, replica := p.primary.services(), p.replica.services()
	link.budget.Store(40*mib + random.Int64N(mib))
	p.primary.do("resync", vm)
	highest := int64(0)
	for cut := int64(1); cut <= 4; cut++ {
		eventually(t, "the connection is cut", func() bool {
			if link.cuts.Load() >= cut {
				return true
			}
			now := cursor(t, replica)
			if state := primary.newest(t.Context()).GetState(); now < highest && state == vmreplicav1.ResyncState_RESYNC_STATE_COMPARING {
				t.Errorf("the cursor fell from %d to %d", highest, now)
			}
			highest = max(highest, now)
			return primary.newest(t.Context()).GetState() == vmreplicav1.ResyncState_RESYNC_STATE_DONE
		})
		link.budget.Store(4*mib + random.Int64N(20*mib))
	}
	link.budget.Store(-1)
	done := p.ends(primary)
	equal(t, p.image(), p.base())
	if done.GetReconnects() == 0 || done.GetRestarts() != 0 {
		t.Errorf("%d reconnects and %d restarts after %d cuts", done.GetReconnects(), done.GetRestarts(), link.cuts.Load())
	}
	checkRecovered(t, p)
}

// checkRecovered looks for the events of a lost and found connection.
func checkRecovered(t *testing.T, p *pair) {
	t.Helper()
	said := p.primary.do("events", vm)
	for _, event := range []string{"32315", "tried again in", "60010", "goes on after"} {
		if !strings.Contains(said, event) {
			t.Errorf("the events do not say %q:\n%s", event, said)
		}
	}
}

func TestConnectionGoesSilent(t *testing.T) {
	t.Parallel()
	var link *proxy
	p := newPair(t, behindProxy(&link))
	p.inStep(64*mib, 61)
	p.limit("16MiB/s")
	rewrite(t, p.image(), 1, 62)
	s := p.primary.services()
	p.primary.do("resync", vm)
	eventually(t, "something was sent", func() bool { return s.newest(t.Context()).GetDisks()[0].GetBytesDiffering() > 8*mib })
	link.silent.Store(true)
	began := time.Now()
	for s.newest(t.Context()).GetReason() == "" {
		if time.Since(began) > 3*time.Minute {
			t.Fatal("nobody noticed within three minutes that nothing moves")
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("noticed after %s: %s", time.Since(began).Round(time.Second), s.newest(t.Context()).GetReason())
	p.primary.try("get", vm).wants(t, 0, "Warning", "Resynchronizing")
	link.silent.Store(false)
	link.cutAll()
	p.ends(s)
	equal(t, p.image(), p.base())
	checkRecovered(t, p)
}

func TestConnectionInSmallPieces(t *testing.T) {
	t.Parallel()
	var link *proxy
	p := newPair(t, behindProxy(&link))
	link.piece.Store(777)
	p.inStep(48*mib, 63)
	rewrite(t, p.image(), 2, 64)
	p.primary.do("resync", vm, "--wait")
	equal(t, p.image(), p.base())
	if n := p.primary.services().newest(t.Context()).GetReconnects(); n != 0 {
		t.Errorf("%d reconnects on a slow link", n)
	}
}
