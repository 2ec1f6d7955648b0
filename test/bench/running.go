package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// cycleInterval is the shortest there is.
const cycleInterval = 5 * time.Second

// protect makes the image a VM that is replicated while it runs, with the first copy made.
func (p *pair) protect(ctx context.Context, vm string) error {
	_, err := p.ask(ctx, p.primaryIn, p.primaryAddress, "enable", vm, "--disk", p.image(vm), "--replica", p.replicaAddress,
		"--interval", cycleInterval.String(), "--hrl-limit", "none", "--auto-resync", "off")
	if err == nil {
		_, err = p.ask(ctx, p.primaryIn, p.primaryAddress, "start-initial", vm, "--wait")
	}
	return err
}

// export is the VM's disk as a machine attaches it.
func (p *pair) export(vm string) string {
	return fmt.Sprintf("nbd+unix:///%s/%s?socket=%s", vm, filepath.Base(p.image(vm)), filepath.Join(p.records("primary"), "nbd.sock"))
}

// status is the VM as the primary shows it.
func (p *pair) status(ctx context.Context, vm string) (*vmreplicav1.ReplicationStatus, error) {
	said, err := p.ask(ctx, p.primaryIn, p.primaryAddress, "get", vm, "-o", "json")
	if err != nil {
		return nil, err
	}
	var r vmreplicav1.Replication
	err = (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(said), &r)
	return r.GetStatus(), err
}

// until waits until the VM is as wanted, which it must be before long.
func (p *pair) until(ctx context.Context, vm, what string, is func(*vmreplicav1.ReplicationStatus) bool) error {
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		status, err := p.status(ctx, vm)
		if err != nil || is(status) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting until %s: %v", what, status)
		}
	}
}

// sent waits until the replica has everything.
func (p *pair) sent(ctx context.Context, vm string) error {
	return p.until(ctx, vm, "everything is sent", func(s *vmreplicav1.ReplicationStatus) bool { return s.GetPendingBytes() == 0 || !s.GetTracked() })
}

// suspend and resume are the operator's.
func (p *pair) suspend(ctx context.Context, vm string) error {
	_, err := p.ask(ctx, p.primaryIn, p.primaryAddress, "suspend", vm)
	return err
}

func (p *pair) resume(ctx context.Context, vm string) error {
	_, err := p.ask(ctx, p.primaryIn, p.primaryAddress, "resume", vm)
	return err
}

// checkContent compares the replica's newest content with the image of a machine that has stopped writing.
func (p *pair) checkContent(ctx context.Context, vm string) error {
	if err := p.sent(ctx, vm); err != nil {
		return err
	}
	exported := filepath.Join(p.dir, "exported")
	defer os.Remove(exported)
	if _, err := p.ask(ctx, p.replicaIn, p.replicaAddress, "export", vm, "--force", exported); err != nil {
		return err
	}
	return compare(ctx, p.image(vm), exported)
}

// attached is qemu-io that keeps an export open.
type attached struct {
	command *exec.Cmd
	in      io.WriteCloser
}

func attach(ctx context.Context, uri string) (*attached, error) {
	a := &attached{command: exec.CommandContext(ctx, "qemu-io", "-f", "raw", uri)}
	a.command.Stderr = os.Stderr
	var err error
	if a.in, err = a.command.StdinPipe(); err != nil {
		return nil, err
	}
	return a, a.command.Start()
}

// do has it do something, and does not wait.
func (a *attached) do(commands ...string) error {
	_, err := io.WriteString(a.in, strings.Join(commands, "\n")+"\n")
	return err
}

// detach lets it do what it was told, and waits for it.
func (a *attached) detach() error { return errors.Join(a.in.Close(), a.command.Wait()) }
