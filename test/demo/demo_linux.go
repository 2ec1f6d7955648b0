package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The names that the demo gives. A replica keeps a disk at STORAGE/<primary>/<VM>/<disk>.
const (
	primaryName = "host1"
	replicaName = "host2"
	personName  = "alice"
	vmName      = "web01"
	diskName    = "root.img"
)

// demo is one run: where everything lies and what has to be undone.
type demo struct {
	dir      string
	binaries string
	// image is the machine's disk, copy what the replica has of it.
	image, copy string
	person      person
	cleanup     cleanup
	report      report
}

// demonstrate does everything and undoes it again.
func demonstrate(ctx context.Context, binaries string) (err error) {
	d := &demo{}
	defer func() { err = errors.Join(err, d.cleanup.run()) }()
	if err := d.prepare(binaries); err != nil {
		return err
	}
	for _, chapter := range []struct {
		heading string
		tell    func(context.Context) error
	}{
		{"Two images of one machine, changed on both sides since they were the same", d.makeImages},
		{"Certificates: who is who", d.makeCertificates},
		{"Both agents, each a process of its own", d.startAgents},
		{"The replica lets the primary in, and the VM is enabled on the older copy", d.enable},
		{"The first run: compare everything, send what differs", d.firstRun},
		{"More work on the machine, then a resync", d.secondRun},
		{"A verify: compare and prove, write nothing", d.verify},
	} {
		fmt.Printf("\n── %s\n", chapter.heading)
		began := time.Now()
		if err := chapter.tell(ctx); err != nil {
			return err
		}
		d.report.step(chapter.heading, time.Since(began))
	}
	fmt.Printf("\n── What happened\n")
	d.report.print(os.Stdout)
	return nil
}

// prepare says at once what is missing, and makes the directories.
func (d *demo) prepare(binaries string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New(`the demo mounts disk images through loop devices, which needs root: sudo env "PATH=$PATH" make demo`)
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "cp", "cmp", "e2fsck", "sqlite3"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not installed: tools/setup demo installs what is missing", tool)
		}
	}
	if d.binaries, err = filepath.Abs(binaries); err != nil {
		return err
	}
	for _, program := range []string{"agent-primary", "agent-replica", "vmreplica"} {
		if _, err := os.Stat(filepath.Join(d.binaries, program)); err != nil {
			return fmt.Errorf("%w: build it with: make", err)
		}
	}
	if d.dir, err = os.MkdirTemp("", "vmreplica-demo-"); err != nil {
		return err
	}
	d.cleanup.add(func() error { return os.RemoveAll(d.dir) })
	d.image = d.path("images", diskName)
	d.copy = d.path("storage", primaryName, vmName, diskName)
	for _, directory := range []string{d.path("mnt"), filepath.Dir(d.image), filepath.Dir(d.copy)} {
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) path(names ...string) string {
	return filepath.Join(append([]string{d.dir}, names...)...)
}

// cleanup is what has to be undone, the last first, whatever else failed.
type cleanup struct{ steps []func() error }

func (c *cleanup) add(step func() error) { c.steps = append(c.steps, step) }

func (c *cleanup) run() error {
	var errs []error
	for len(c.steps) > 0 {
		last := len(c.steps) - 1
		step := c.steps[last]
		c.steps = c.steps[:last]
		errs = append(errs, step())
	}
	return errors.Join(errs...)
}
