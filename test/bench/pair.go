package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// The names in the pair's certificates; the primary's is also that of its directory on the replica.
const primaryName, replicaName, operatorName = "host1", "host2", "operator"

// setting is where a pair lives.
type setting struct {
	// dir holds certificates, records and logs.
	dir string
	// images and storage are the primary's and the replica's directories.
	images, storage string
	// primaryIn and replicaIn are network namespaces, primaryHost and replicaHost their addresses; empty for loopback.
	primaryIn, replicaIn, primaryHost, replicaHost string
}

// pair is both agents, running.
type pair struct {
	setting
	vmreplica                      string
	primaryAddress, replicaAddress string
	primary, replica               *process
}

// startPair makes certificates, starts both agents and authorizes the primary.
func startPair(ctx context.Context, b *bench, s setting) (*pair, error) {
	if s.primaryHost == "" {
		s.primaryHost, s.replicaHost = "127.0.0.1", "127.0.0.1"
	}
	p := &pair{setting: s, vmreplica: filepath.Join(b.bin, "vmreplica")}
	if err := p.makeCertificates(ctx); err != nil {
		return nil, err
	}
	if err := p.startAgents(ctx, b.bin); err != nil {
		p.stop()
		return nil, err
	}
	if _, err := p.ask(ctx, p.replicaIn, p.replicaAddress, "authorize", primaryName, "--storage", primaryName); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *pair) makeCertificates(ctx context.Context) error {
	for _, dir := range []string{p.records("primary"), p.records("replica"), p.images, p.storage} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	pki := filepath.Join(p.dir, "pki")
	issue := []string{p.vmreplica, "pki", "issue", "--dir", pki, "--role"}
	return every(ctx,
		[]string{p.vmreplica, "pki", "init", "--dir", pki},
		append(issue[:len(issue):len(issue)], "primary", "--name", primaryName, "--host", p.primaryHost),
		append(issue[:len(issue):len(issue)], "replica", "--name", replicaName, "--host", p.replicaHost),
		append(issue[:len(issue):len(issue)], "operator", "--name", operatorName))
}

func (p *pair) startAgents(ctx context.Context, bin string) error {
	ports := [2]int{}
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			return err
		}
	}
	p.primaryAddress = fmt.Sprintf("%s:%d", p.primaryHost, ports[0])
	p.replicaAddress = fmt.Sprintf("%s:%d", p.replicaHost, ports[1])
	var err error
	p.replica, err = startProcess(ctx, filepath.Join(p.dir, "agent-replica.log"), inNamespace(p.replicaIn,
		filepath.Join(bin, "agent-replica"), "--listen", p.replicaAddress, "--tls-dir", p.identity(replicaName),
		"--state-dir", p.records("replica"), "--storage-dir", p.storage)...)
	if err != nil {
		return err
	}
	p.primary, err = startProcess(ctx, filepath.Join(p.dir, "agent-primary.log"), inNamespace(p.primaryIn,
		filepath.Join(bin, "agent-primary"), "--listen", p.primaryAddress, "--tls-dir", p.identity(primaryName),
		"--state-dir", p.records("primary"), "--image-dir", p.images)...)
	if err != nil {
		return err
	}
	for _, agent := range []struct {
		namespace, address string
		process            *process
	}{{p.replicaIn, p.replicaAddress, p.replica}, {p.primaryIn, p.primaryAddress, p.primary}} {
		err := awaitTrue(ctx, agent.process, func() bool {
			_, err := p.ask(ctx, agent.namespace, agent.address, "agent", "get")
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// records is an agent's state directory.
func (p *pair) records(agent string) string { return filepath.Join(p.dir, "state", agent) }

func (p *pair) identity(name string) string { return filepath.Join(p.dir, "pki", name) }

// ask is a command to one of the agents.
func (p *pair) ask(ctx context.Context, namespace, address string, args ...string) (string, error) {
	command := inNamespace(namespace, append([]string{
		p.vmreplica, "--server", address, "--tls-dir", p.identity(operatorName)}, args...)...)
	return output(ctx, command[0], command[1:]...)
}

// image is where a VM's disk lies on the primary, held where its replica does.
func (p *pair) image(vm string) string { return filepath.Join(p.images, vm+".img") }
func (p *pair) held(vm string) string {
	return filepath.Join(p.storage, primaryName, vm, filepath.Base(p.image(vm)))
}

// adopt makes what lies at both sides a VM that is in step. The primary dials address; empty is the replica's own.
func (p *pair) adopt(ctx context.Context, vm, address string) error {
	if address == "" {
		address = p.replicaAddress
	}
	_, err := p.ask(ctx, p.primaryIn, p.primaryAddress, "enable", vm, "--disk", p.image(vm), "--replica", address, "--use-existing",
		"--auto-resync", "off")
	if err != nil {
		return err
	}
	_, err = p.ask(ctx, p.primaryIn, p.primaryAddress, "start-initial", vm, "--wait")
	return err
}

// resyncTime is what one resync took and moved.
type resyncTime struct {
	start time.Time
	// took is from the start to the commit, wall as the operator sees it: the command, and the merge.
	took, wall time.Duration
	// primaryCPU and replicaCPU include the merge.
	primaryCPU, replicaCPU time.Duration
	// sent and received are as the primary counts them, differing what it found.
	sent, received, differing int64
}

// cpu is that of both agents.
func (r resyncTime) cpu() time.Duration { return r.primaryCPU + r.replicaCPU }

// resync brings a VM's replica in step and waits for the end of the merge.
func (p *pair) resync(ctx context.Context, vm string) (resyncTime, error) {
	return p.timed(ctx, "resync", vm)
}

// timed is a command that resynchronizes.
func (p *pair) timed(ctx context.Context, command ...string) (resyncTime, error) {
	began := time.Now()
	primaryBefore, err1 := p.primary.cpu()
	replicaBefore, err2 := p.replica.cpu()
	said, err := p.ask(ctx, p.primaryIn, p.primaryAddress, append(command, "--wait", "-o", "json")...)
	r := resyncTime{wall: time.Since(began)}
	if err != nil {
		return r, fmt.Errorf("%w\nthe primary's log ends: %s\nthe replica's: %s", err, p.primary.tail(), p.replica.tail())
	}
	primaryAfter, err3 := p.primary.cpu()
	replicaAfter, err4 := p.replica.cpu()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return r, err
	}
	r.primaryCPU, r.replicaCPU = primaryAfter-primaryBefore, replicaAfter-replicaBefore
	var reported vmreplicav1.Resync
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(said), &reported); err != nil {
		return r, err
	}
	if reported.GetCommitTime() == nil || reported.GetReconnects() > 0 || reported.GetRestarts() > 0 {
		return r, fmt.Errorf("the resync did not go through at once: %s", said)
	}
	r.start = reported.GetStartTime().AsTime()
	r.took = reported.GetCommitTime().AsTime().Sub(r.start)
	for _, disk := range reported.GetDisks() {
		r.sent += disk.GetWireBytesSent()
		r.received += disk.GetWireBytesReceived()
		r.differing += disk.GetBytesDiffering()
	}
	return r, nil
}

// stop ends both agents.
func (p *pair) stop() {
	for _, agent := range []*process{p.primary, p.replica} {
		if agent != nil {
			agent.stop()
		}
	}
}
