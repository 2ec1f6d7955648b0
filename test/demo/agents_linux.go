package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	startBound = 30 * time.Second
	stopBound  = 15 * time.Second
)

// person is who types the commands: at which agents, with which certificate.
type person struct {
	program          string
	primary, replica string
	tlsDir           string
}

// makeCertificates makes an authority, and a certificate for each agent and the operator.
func (d *demo) makeCertificates(ctx context.Context) error {
	d.person = person{program: d.binaries + "/vmreplica", tlsDir: d.path("pki", personName)}
	for _, args := range [][]string{
		{"init", "--dir", d.path("pki")},
		{"issue", "--dir", d.path("pki"), "--role", "replica", "--name", replicaName, "--host", "127.0.0.1"},
		{"issue", "--dir", d.path("pki"), "--role", "primary", "--name", primaryName},
		{"issue", "--dir", d.path("pki"), "--role", "operator", "--name", personName},
	} {
		if err := d.person.types(ctx, "", append([]string{"pki"}, args...)...); err != nil {
			return err
		}
	}
	return nil
}

// startAgents starts both agents at free ports of the loopback.
func (d *demo) startAgents(ctx context.Context) (err error) {
	d.person.replica, err = d.start(ctx, "agent-replica", "--tls-dir", d.path("pki", replicaName),
		"--storage-dir", d.path("storage"))
	if err != nil {
		return err
	}
	d.person.primary, err = d.start(ctx, "agent-primary", "--tls-dir", d.path("pki", primaryName),
		"--image-dir", d.path("images"))
	return err
}

// start starts an agent and answers where it listens, once it does.
func (d *demo) start(ctx context.Context, program string, args ...string) (address string, err error) {
	args = append(args, "--state-dir", d.path(program), "--listen", "127.0.0.1:0", "--log-format", "json")
	fmt.Println("$", strings.Join(append([]string{program}, args...), " "))
	if err := os.MkdirAll(d.path(program), 0o700); err != nil {
		return "", err
	}
	agent := exec.Command(d.binaries+"/"+program, args...)
	// Ctrl-C is for the demo, which then stops the agents; they do not outlive it however it ends.
	agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	output, err := agent.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := agent.Start(); err != nil {
		return "", err
	}
	log := follow(output)
	d.cleanup.add(func() error { return log.stop(agent) })
	select {
	case address = <-log.address:
		fmt.Printf("%s listens at %s\n", program, address)
		return address, nil
	case <-log.ended:
		return "", fmt.Errorf("%s did not start: %s", program, log.last)
	case <-time.After(startBound):
		return "", fmt.Errorf("%s did not start within %s", program, startBound)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// log is what an agent says. address gets where it listens.
type log struct {
	address chan string
	ended   chan struct{}
	last    string // its last line; valid once ended is closed
}

func follow(output interface{ Read([]byte) (int, error) }) *log {
	l := &log{address: make(chan string, 1), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		lines := bufio.NewScanner(output)
		for lines.Scan() {
			l.last = lines.Text()
			var entry struct{ Level, Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &entry) != nil {
				continue
			}
			if entry.Address != "" {
				select {
				case l.address <- entry.Address:
				default:
				}
			}
			if entry.Level == "ERROR" {
				fmt.Println("  an agent says:", l.last)
			}
		}
	}()
	return l
}

// stop ends the agent, orderly where it can.
func (l *log) stop(agent *exec.Cmd) error {
	if err := agent.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	kill := time.AfterFunc(stopBound, func() { _ = agent.Process.Kill() })
	defer kill.Stop()
	<-l.ended
	if err := agent.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", agent.Path, err, l.last)
	}
	return nil
}

// types runs a command of the operator's as he would type it, with its output where he sees it.
func (p person) types(ctx context.Context, server string, args ...string) error {
	command := p.command(ctx, server, args...)
	command.Stdout = os.Stdout
	return run(command)
}

// asks is types with the output, which is for programs, read instead of shown.
func (p person) asks(ctx context.Context, server string, into any, args ...string) error {
	command := p.command(ctx, server, args...)
	var output strings.Builder
	command.Stdout = &output
	if err := run(command); err != nil {
		return err
	}
	return json.Unmarshal([]byte(output.String()), into)
}

// command is what the operator types: server names the agent to ask, empty where none is.
func (p person) command(ctx context.Context, server string, args ...string) *exec.Cmd {
	if server != "" {
		args = append([]string{"--server", server, "--tls-dir", p.tlsDir}, args...)
	}
	command := exec.CommandContext(ctx, p.program, args...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = stopBound
	command.Stderr = os.Stderr
	return command
}

func run(command *exec.Cmd) error {
	typed := strings.Join(command.Args[1:], " ")
	fmt.Println("$ vmreplica", typed)
	if err := command.Run(); err != nil {
		return fmt.Errorf("vmreplica %s: %w", typed, err)
	}
	return nil
}
