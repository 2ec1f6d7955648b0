package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"vmreplica/internal/build"
)

// checkTimeout is how long one check may take before it counts as failed.
const checkTimeout = 5 * time.Second

// Check answers nil while a part of the agent works. It must return soon after ctx ends.
type Check func(ctx context.Context) error

// Host is what an agent sees of the machine it runs on. Its methods may be called concurrently.
type Host struct {
	// Log is the agent's log.
	Log *slog.Logger
	// Registry is the agent's own; it holds the Go runtime, the process and the build already.
	Registry *prometheus.Registry

	mu     sync.Mutex // guards what follows
	ready  bool
	checks []namedCheck
}

type namedCheck struct {
	name  string
	check Check
}

func newHost(log *slog.Logger) *Host {
	registry := prometheus.NewRegistry()
	info := build.Read()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "vmreplica_build_info",
			Help:        "Always 1; the labels say which build runs.",
			ConstLabels: prometheus.Labels{"version": info.Version, "revision": info.Revision, "go": info.Go},
		}, func() float64 { return 1 }),
	)
	return &Host{Log: log, Registry: registry}
}

// AddCheck makes check part of /healthz and of what systemd's watchdog waits for.
func (h *Host) AddCheck(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, namedCheck{name, check})
}

// Ready says that the agent serves: /readyz answers 200, and systemd's start job ends.
func (h *Host) Ready() {
	h.mu.Lock()
	h.ready = true
	h.mu.Unlock()
	h.notify(notifyReady)
}

// Status tells systemd in one line how the agent does.
func (h *Host) Status(format string, args ...any) {
	h.notify("STATUS=" + oneLine(fmt.Sprintf(format, args...)))
}

func (h *Host) stopping() {
	h.mu.Lock()
	h.ready = false
	h.mu.Unlock()
	h.notify(notifyStopping)
}

func (h *Host) isReady() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready
}

// failed is the first check that does not pass; nil when all do.
func (h *Host) failed(ctx context.Context) error {
	h.mu.Lock()
	checks := h.checks[:len(h.checks):len(h.checks)]
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	for _, c := range checks {
		if err := c.check(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}
