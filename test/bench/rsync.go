package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rsyncDaemon is Debian's rsync as a daemon on loopback, which holds one directory.
type rsyncDaemon struct {
	process *process
	port    int
}

// startRsync serves directory as the module "bench".
func startRsync(ctx context.Context, work, directory string) (*rsyncDaemon, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(work, "rsyncd.conf")
	owner := ""
	if os.Geteuid() == 0 {
		owner = "uid = 0\ngid = 0\n"
	}
	text := fmt.Sprintf("%suse chroot = no\naddress = 127.0.0.1\n[bench]\npath = %s\nread only = no\n", owner, directory)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &rsyncDaemon{port: port}
	d.process, err = startProcess(ctx, filepath.Join(work, "rsyncd.log"),
		"rsync", "--daemon", "--no-detach", "--config="+config, fmt.Sprintf("--port=%d", port), "--log-file=/dev/stderr")
	if err != nil {
		return nil, err
	}
	return d, awaitTrue(ctx, d.process, func() bool {
		return exec.CommandContext(ctx, "rsync", d.target("")).Run() == nil
	})
}

func (d *rsyncDaemon) target(name string) string {
	return fmt.Sprintf("rsync://127.0.0.1:%d/bench/%s", d.port, name)
}

// rsyncTime is what one run of rsync took and sent.
type rsyncTime struct {
	wall time.Duration
	wire int64
}

// copy brings the daemon's file of the same name in step with an image. It compares although size and time may agree.
func (d *rsyncDaemon) copy(ctx context.Context, image string) (rsyncTime, error) {
	began := time.Now()
	said, err := output(ctx, "rsync", "--inplace", "--no-whole-file", "--fsync", "--ignore-times", "--stats",
		image, d.target(filepath.Base(image)))
	took := rsyncTime{wall: time.Since(began)}
	for line := range strings.Lines(said) {
		label, figure, _ := strings.Cut(line, ":")
		if label == "Total bytes sent" || label == "Total bytes received" {
			var n int64
			if _, err := fmt.Sscan(strings.ReplaceAll(figure, ",", ""), &n); err != nil {
				return took, fmt.Errorf("rsync --stats says %q: %w", line, err)
			}
			took.wire += n
		}
	}
	return took, err
}

func (d *rsyncDaemon) stop() { d.process.stop() }
