package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// proxy stands between the primary and the replica, hands on every byte, and notes when what the primary has sent
// since the last watch began passed a threshold.
type proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu        sync.Mutex // guards what follows
	threshold int64
	seen      int64
	passed    time.Time
	open      map[net.Conn]bool
}

func startProxy(target string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, target: target, open: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	return p, nil
}

func (p *proxy) address() string { return p.listener.Addr().String() }

// watch begins to count anew.
func (p *proxy) watch(threshold int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.threshold, p.seen, p.passed = threshold, 0, time.Time{}
}

// when the threshold was passed; false when it was not.
func (p *proxy) when() (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed, !p.passed.IsZero()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = near.Close() // the primary sees that the replica is not there
			continue
		}
		p.running.Go(func() { p.forward(far, near, p.count) })
		p.running.Go(func() { p.forward(near, far, func(int) {}) })
	}
}

// forward copies until either end is closed, and closes both.
func (p *proxy) forward(to, from net.Conn, count func(int)) {
	p.mu.Lock()
	p.open[from] = true
	p.mu.Unlock()
	buffer := make([]byte, 64*kib)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			count(n)
			_, writeErr := to.Write(buffer[:n])
			err = errors.Join(err, writeErr)
		}
		if err != nil {
			_, _ = to.Close(), from.Close() // the copy is over, whatever they say
			return
		}
	}
}

func (p *proxy) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen += int64(n)
	if p.threshold > 0 && p.seen >= p.threshold && p.passed.IsZero() {
		p.passed = time.Now()
	}
}

// stop cuts all connections and waits for their goroutines.
func (p *proxy) stop() {
	_ = p.listener.Close() // it was listening
	p.mu.Lock()
	for conn := range p.open {
		_ = conn.Close() // cutting is all that is wanted
	}
	p.mu.Unlock()
	p.running.Wait()
}
