package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// How long a process may take to begin to answer, and to end after it was asked to.
const (
	startTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// process is one that runs until it is stopped; what it writes goes to a file.
type process struct {
	command *exec.Cmd
	log     string
	ended   chan struct{}
}

func startProcess(ctx context.Context, log string, command ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{command: exec.CommandContext(ctx, command[0], command[1:]...), log: log, ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = out, out
	p.command.Cancel = func() error { return p.command.Process.Signal(syscall.SIGTERM) }
	p.command.WaitDelay = stopTimeout
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // how it ended is in its log
	}()
	return p, nil
}

// stop ends the process and waits for it. It may be called more than once.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// tail is the end of the log, for an error.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-2000):])
}

// cpu is the time on processors so far, in steps of 10 ms.
func (p *process) cpu() (time.Duration, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th.
	_, rest, _ := strings.Cut(string(content), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	ticks := int64(0)
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// peak is the most memory that was resident, in bytes.
func (p *process) peak() (int64, error) { return residentPeak(p.command.Process.Pid) }

func residentPeak(pid int) (int64, error) { return memoryOf(pid, "VmHWM") }

// resident is the memory that is resident now.
func resident(pid int) (int64, error) { return memoryOf(pid, "VmRSS") }

func memoryOf(pid int, figure string) (int64, error) {
	text := procValue(fmt.Sprintf("/proc/%d/status", pid), figure)
	var n int64
	if _, err := fmt.Sscanf(text, "%d kB", &n); err != nil {
		return 0, fmt.Errorf("%s of process %d is %q: %w", figure, pid, text, err)
	}
	return n * kib, nil
}

// freePort is a port of loopback that nobody listens on now.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// awaitTrue asks ten times a second until the answer is yes, or p has ended.
func awaitTrue(ctx context.Context, p *process, is func() bool) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(startTimeout)
	for !is() {
		select {
		case <-ticker.C:
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.command.Path, p.tail())
		case <-deadline:
			return fmt.Errorf("%s does not answer after %s: %s", p.command.Path, startTimeout, p.tail())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
