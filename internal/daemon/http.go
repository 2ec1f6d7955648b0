package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"vmreplica/internal/failure"
)

// Bounds of the HTTP server: it is for a scraper and a load balancer, not for the world.
const (
	httpHeaderTimeout  = 5 * time.Second
	httpRequestTimeout = 30 * time.Second
	httpIdleTimeout    = 2 * time.Minute
	httpStopTimeout    = 5 * time.Second
	httpMaxHeaderBytes = 16 << 10
)

// serveHTTP serves metrics and health at address, or nothing when it is empty, and answers how to end it.
func (h *Host) serveHTTP(address string) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "metrics: %w", err).
			Try("Give --metrics-listen an address that is free.")
	}
	server := &http.Server{
		Handler:           h.handler(),
		ReadHeaderTimeout: httpHeaderTimeout,
		ReadTimeout:       httpRequestTimeout,
		WriteTimeout:      httpRequestTimeout,
		IdleTimeout:       httpIdleTimeout,
		MaxHeaderBytes:    httpMaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(h.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			h.Log.Error("the metrics server ended", "error", err)
		}
	}()
	h.Log.Info("metrics are served", "address", listener.Addr().String())
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), httpStopTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			server.Close()
		}
		<-done
	}, nil
}

func (h *Host) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(h.Log.Handler(), slog.LevelWarn),
		Registry: h.Registry,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		answer(w, h.failed(r.Context()))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if !h.isReady() {
			answer(w, errors.New("not serving"))
			return
		}
		answer(w, h.failed(r.Context()))
	})
	return mux
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	io.WriteString(w, "ok\n")
}
