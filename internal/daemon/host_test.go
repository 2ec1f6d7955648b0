package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func get(h *Host, path string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	h.handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
	return recorder
}

func TestReadinessFollowsTheLifeOfTheAgent(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	h := newHost(slog.New(slog.DiscardHandler))
	var broken error
	h.AddCheck("storage", func(context.Context) error { return broken })
	expect := func(when string, health, ready int) {
		t.Helper()
		if got := get(h, "/healthz").Code; got != health {
			t.Errorf("%s: /healthz is %d, want %d", when, got, health)
		}
		if got := get(h, "/readyz").Code; got != ready {
			t.Errorf("%s: /readyz is %d, want %d", when, got, ready)
		}
	}
	expect("at first", 200, 503)
	h.Ready()
	expect("once ready", 200, 200)
	broken = errors.New("gone")
	expect("with a failed check", 503, 503)
	if body := get(h, "/healthz").Body.String(); body != "storage: gone\n" {
		t.Errorf("body %q", body)
	}
	broken = nil
	h.stopping()
	expect("while stopping", 200, 503)
}

func TestCheckThatHangsCountsAsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(slog.New(slog.DiscardHandler))
		h.AddCheck("state", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		if err := h.failed(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != checkTimeout {
			t.Errorf("it took %v, want %v", took, checkTimeout)
		}
	})
}

func TestRegistryIsTheAgentsOwn(t *testing.T) {
	for range 2 { // a second host in the same process must not collide with the first
		h := newHost(slog.New(slog.DiscardHandler))
		h.Registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "vmreplica_test_total", Help: "x"}))
		body := get(h, "/metrics").Body.String()
		for _, want := range []string{"vmreplica_test_total 0", "go_goroutines", "vmreplica_build_info{"} {
			if !strings.Contains(body, want) {
				t.Errorf("/metrics lacks %s", want)
			}
		}
	}
}
