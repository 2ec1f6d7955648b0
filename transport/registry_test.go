package transport

import (
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// endless is a registered connection over a pipe; its peer's end answers when it is closed.
func endless(t *testing.T, r *connections, expires time.Time) (conn *connection, ended <-chan time.Time) {
	t.Helper()
	ours, theirs := net.Pipe()
	conn, err := r.add(ours, ours, Identity{Name: "x"}, expires, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan time.Time, 1)
	go func() {
		theirs.Read(make([]byte, 1))
		end <- time.Now()
	}()
	return conn, end
}

func TestAConnectionEndsExactlyWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newConnections(discardLog(), time.Now)
		want := time.Now().Add(100*24*time.Hour + 12345*time.Millisecond)
		_, ended := endless(t, r, want)
		if got := <-ended; !got.Equal(want) {
			t.Errorf("ended %s from the certificate", got.Sub(want))
		}
		if len(r.open) != 0 {
			t.Error("it is still registered")
		}
	})
}

func TestAConnectionEndsSoonAfterTheClockIsSetForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64
		r := newConnections(discardLog(), func() time.Time { return time.Now().Add(time.Duration(set.Load())) })
		_, ended := endless(t, r, time.Now().Add(24*time.Hour))
		time.Sleep(time.Hour)
		synctest.Wait()
		set.Store(int64(48 * time.Hour))
		begin := time.Now()
		if waited := (<-ended).Sub(begin); waited > connectionCheckInterval {
			t.Errorf("ended after %s", waited)
		}
	})
}

func TestAClosedConnectionLeavesAndItsTimerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newConnections(discardLog(), time.Now)
		conn, ended := endless(t, r, time.Now().Add(24*time.Hour))
		begin := time.Now()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if got := <-ended; !got.Equal(begin) || len(r.open) != 0 || conn.timer.Stop() {
			t.Errorf("ended at %s, %d registered", got, len(r.open))
		}
		conn.again()
		if conn.timer.Stop() {
			t.Error("an examination under way starts the timer anew")
		}
	})
}

func TestAChainEndsWithItsFirstCertificateAndThePeerWithItsLastChain(t *testing.T) {
	until := func(hours ...int) (chain []*x509.Certificate) {
		for _, h := range hours {
			chain = append(chain, &x509.Certificate{NotAfter: time.Unix(int64(h)*3600, 0)})
		}
		return chain
	}
	for want, chains := range map[int64][][]*x509.Certificate{
		3: {until(3, 5, 9)},
		2: {until(8, 2, 9)},
		4: {until(8, 9, 4), until(8, 1)},
		6: {until(8, 1), until(8, 6)},
	} {
		if got := chainEnd(chains).Unix(); got != want*3600 {
			t.Errorf("ends after %d hours, want %d", got/3600, want)
		}
	}
}

func TestASocketClosedBelowIsForgotten(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	raw, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := newConnections(discardLog(), time.Now)
	conn, err := r.add(raw, raw, Identity{}, time.Now().Add(time.Hour), 0)
	if err != nil {
		t.Fatal(err)
	}
	conn.examine()
	if len(r.open) != 1 {
		t.Error("an open socket is forgotten")
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	conn.examine()
	if len(r.open) != 0 {
		t.Error("a closed socket is kept")
	}
	if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closing it again: %v", err)
	}
}
