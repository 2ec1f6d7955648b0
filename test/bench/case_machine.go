package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// What tracked writes are to reach: of qemu-nbd's operations or bytes in a second, and of our own server's that tracks nothing.
const (
	randomOverQEMU      = 1.15
	randomOverUntracked = 0.7
	sequentialOverQEMU  = 2.0
)

// A machine's image and how long one load lasts. The image is in memory: servers are compared, and no disk.
const (
	machineSize    = 512 * mib
	machineSeconds = 6
	memoryDir      = "/dev/shm"
)

// serveQEMU is qemu-nbd, which tracks nothing.
const serveQEMU = "qemu-nbd"

// runMachine measures what a machine may write through the NBD server that tracks it.
func runMachine(ctx context.Context, b *bench) error {
	dir, err := os.MkdirTemp(memoryDir, "vmreplica-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "machine.img")
	if err := scatter(path, machineSize, machineSize, 5); err != nil {
		return err
	}
	random := []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}
	sequential := []string{"--rw=write", "--bs=1M", "--iodepth=4"}
	written := map[string]map[string][]float64{"random": {}, "sequential": {}}
	var measures []func() error
	for _, kind := range []string{serveTracked, serveQEMU, serveUntracked} {
		for name, args := range map[string][]string{"random": random, "sequential": sequential} {
			measures = append(measures, func() error {
				rate, err := b.written(ctx, kind, path, args)
				written[name][kind] = append(written[name][kind], rate)
				return err
			})
		}
	}
	for i := range b.rounds {
		if err := inTurn(i, measures, func() error { return ctx.Err() }); err != nil {
			return err
		}
	}
	b.reportMachine(written["random"], written["sequential"])
	return nil
}

func (b *bench) reportMachine(random, sequential map[string][]float64) {
	over := func(kinds map[string][]float64, other string) float64 {
		return median(kinds[serveTracked]) / median(kinds[other])
	}
	b.table.atLeast("4 KiB random writes, tracked ÷ qemu-nbd", over(random, serveQEMU), randomOverQEMU, "%.2f")
	b.table.atLeast("the same, tracked ÷ untracked", over(random, serveUntracked), randomOverUntracked, "%.2f")
	b.table.atLeast("1 MiB sequential, tracked ÷ qemu-nbd", over(sequential, serveQEMU), sequentialOverQEMU, "%.2f")
	for name, figures := range map[string]map[string][]float64{"random 4 KiB, 16 deep": random, "sequential 1 MiB, 4 deep": sequential} {
		b.table.note("10: %s, the image in memory: tracked %s/s, untracked %s/s, qemu-nbd %s/s.", name, bytesText(int64(median(figures[serveTracked]))),
			bytesText(int64(median(figures[serveUntracked]))), bytesText(int64(median(figures[serveQEMU]))))
	}
}

// written is what fio writes in a second to a server of that kind.
func (b *bench) written(ctx context.Context, kind, path string, args []string) (float64, error) {
	socket := path + ".sock"
	_ = os.Remove(socket) // of the server before
	stop, err := b.startServer(ctx, kind, path)
	if err != nil {
		return 0, err
	}
	rate, err := fio(ctx, "nbd+unix:///?socket="+socket, machineSize,
		append(args[:len(args):len(args)], "--time_based", fmt.Sprintf("--runtime=%d", machineSeconds))...)
	return rate, errors.Join(err, stop())
}

// startServer starts a server of the image and waits until it serves.
func (b *bench) startServer(ctx context.Context, kind, path string) (stop func() error, err error) {
	if kind == serveQEMU {
		p, err := startProcess(ctx, path+".log", "qemu-nbd", "--persistent", "--socket="+path+".sock", "--cache=writeback",
			"--format=raw", path)
		if err != nil {
			return nil, err
		}
		err = awaitTrue(ctx, p, func() bool { _, err := os.Stat(path + ".sock"); return err == nil })
		return func() error { p.stop(); return nil }, err
	}
	command := exec.CommandContext(ctx, b.self, serveCommand, kind, path)
	command.Stderr = os.Stderr
	hold, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	said, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	stop = func() error { return errors.Join(hold.Close(), command.Wait()) }
	if _, err := bufio.NewReader(said).ReadString('\n'); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// fio is what a load of writes against an export of size bytes wrote in a second.
func fio(ctx context.Context, uri string, size int64, args ...string) (bytesPerSecond float64, err error) {
	args = append([]string{"--name=bench", "--ioengine=nbd", "--uri=" + uri, fmt.Sprintf("--size=%d", size),
		"--randrepeat=0", "--output-format=json"}, args...)
	said, err := output(ctx, "fio", args...)
	if err != nil {
		return 0, err
	}
	var report struct {
		Jobs []struct {
			Write struct {
				BytesPerSecond float64 `json:"bw_bytes"`
			}
		}
	}
	_, text, _ := strings.Cut(said, "{") // notices precede the report
	if err := json.Unmarshal([]byte("{"+text), &report); err != nil || len(report.Jobs) != 1 {
		return 0, errors.Join(fmt.Errorf("fio said %q", said), err)
	}
	return report.Jobs[0].Write.BytesPerSecond, nil
}
