package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"vmreplica/internal/build"
)

// Exit codes of an agent.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// defaultDrain is how long Run may take to return; the systemd units wait a little longer.
const defaultDrain = 30 * time.Second

// Program is an agent.
type Program struct {
	// Name is the binary's, Purpose one line for --help.
	Name, Purpose string
	// Config holds the defaults, and after loading the settings that Run works with.
	Config Configuration
	// Run does the work until ctx ends, and leaves no goroutine behind. nil after ctx ended is an orderly end.
	Run func(ctx context.Context, host *Host) error
	// Drain bounds the time from the first signal to Run's return; 0 means 30 s.
	Drain time.Duration
}

// Main runs an agent from its arguments (without the program's name) to its exit code: 0 after an orderly end, 1
// after a failure, 2 when the settings are wrong.
func Main(program Program, args []string, stdout, stderr io.Writer) int {
	switch err := load(program, args, stdout); {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case errors.Is(err, errVersion):
		fmt.Fprintf(stdout, "%s %s\n", program.Name, build.Read())
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", program.Name, err)
		return exitUsage
	}
	common := program.Config.Shared()
	log, err := NewLogger(stderr, common.LogFormat, common.LogLevel)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", program.Name, err)
		return exitUsage
	}
	if err := forbidCoreDumps(); err != nil {
		log.Warn("core dumps are not switched off", "error", err)
	}
	for _, limit := range PlatformLimits() {
		log.Warn(limit)
	}
	if err := serve(program, log); err != nil {
		log.Error("the agent failed", "error", err)
		return exitFailed
	}
	return exitDone
}

func serve(program Program, log *slog.Logger) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	host := newHost(log)
	stopHTTP, err := host.serveHTTP(program.Config.Shared().MetricsListen)
	if err != nil {
		return err
	}
	defer stopHTTP()
	defer host.startWatchdog()()

	info := build.Read()
	log.Info("the agent starts", "program", program.Name, "version", info.Version, "go", info.Go, "pid", os.Getpid())
	ended := make(chan error, 1)
	go func() { ended <- program.Run(ctx, host) }()
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("the agent ended without being asked to")
		}
		return err
	case received := <-signals:
		log.Info("the agent stops", "signal", received.String())
		host.stopping()
		cancel()
		return drain(program.Drain, ended, signals, log)
	}
}

// drain waits for Run to return.
func drain(limit time.Duration, ended <-chan error, signals <-chan os.Signal, log *slog.Logger) error {
	if limit == 0 {
		limit = defaultDrain
	}
	patience := time.NewTimer(limit)
	defer patience.Stop()
	select {
	case err := <-ended:
		if err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("stop: %w", err)
		}
		log.Info("the agent has stopped")
		return nil
	case <-patience.C:
		return fmt.Errorf("work was still under way after %v", limit)
	case received := <-signals:
		return fmt.Errorf("stopped at once by a second signal: %v", received)
	}
}
