package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What a resync of a running machine may take, of the same machine's while it is off, and what the machine keeps of its writes.
const (
	onlineLimit = 1.5
	onlineShare = 0.8
)

// The machine's writes while it is resynchronized, and how long it writes before.
const (
	onlineRate = 20 * 1000 * 1000 // bytes a second
	onlineLead = 500 * time.Millisecond
	onlineTick = 100 * time.Millisecond
	onlineVM   = "online"
)

// runOnline measures a forced resync of a machine of which 1 % differs, with the machine off and while it writes.
func runOnline(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "online")
	defer os.RemoveAll(dir)
	p, err := startPair(ctx, b, setting{dir: dir, images: filepath.Join(dir, "images"), storage: filepath.Join(dir, "storage")})
	if err != nil {
		return err
	}
	defer p.stop()
	if err := buildImage(ctx, p.image(onlineVM), b.size); err != nil {
		return err
	}
	if err := p.protect(ctx, onlineVM); err != nil {
		return err
	}
	var off, on []float64
	var alone, beside []float64
	for i := range b.rounds {
		err := inTurn(i, []func() error{
			func() error {
				took, err := p.forced(ctx, b.size)
				off = append(off, took.took.Seconds())
				return err
			},
			func() error {
				took, before, meanwhile, err := p.forcedOnline(ctx, b.size)
				on, alone, beside = append(on, took.took.Seconds()), append(alone, before), append(beside, meanwhile)
				return err
			},
		}, func() error { return p.sent(ctx, onlineVM) })
		if err != nil {
			return err
		}
	}
	if err := p.checkContent(ctx, onlineVM); err != nil {
		return err
	}
	b.table.add("resync of a running machine ÷ while it is off", median(on)/median(off), onlineLimit, "%.2f")
	b.table.atLeast("the machine's writes meanwhile ÷ before", median(beside)/median(alone), onlineShare, "%.2f")
	b.table.note("13: %s, 1 %% of the 4 KiB blocks changed; %.2f s while the machine writes %s/s and %.2f s while it is off; it wrote %s/s before and %s/s meanwhile.",
		bytesText(b.size), median(on), bytesText(onlineRate), median(off), bytesText(int64(median(alone))), bytesText(int64(median(beside))))
	return nil
}

// forced suspends the VM, has its machine change 1 % of it, and resynchronizes it.
func (p *pair) forced(ctx context.Context, size int64) (r resyncTime, err error) {
	if err := p.suspend(ctx, onlineVM); err != nil {
		return r, err
	}
	if _, err := fio(ctx, p.export(onlineVM), size, "--rw=randwrite", "--bs=4k", "--iodepth=16", fmt.Sprintf("--io_size=%d", size/100)); err != nil {
		return r, err
	}
	return p.timed(ctx, "resume", onlineVM, "--resynchronize")
}

// forcedOnline does the same while the machine writes on, and answers what it wrote in a second before and meanwhile.
func (p *pair) forcedOnline(ctx context.Context, size int64) (r resyncTime, alone, beside float64, err error) {
	log := filepath.Join(p.dir, "rates")
	load := exec.CommandContext(ctx, "fio", "--name=load", "--ioengine=nbd", "--uri="+p.export(onlineVM), fmt.Sprintf("--size=%d", size),
		"--rw=randwrite", "--bs=16k", "--iodepth=4", "--randrepeat=0", fmt.Sprintf("--rate=%d", onlineRate), "--time_based", "--runtime=600",
		"--write_bw_log="+log, fmt.Sprintf("--log_avg_msec=%d", onlineTick.Milliseconds()), "--log_unix_epoch=1")
	var said bytes.Buffer
	load.Stdout, load.Stderr = &said, &said
	if err := p.suspend(ctx, onlineVM); err != nil {
		return r, 0, 0, err
	}
	if _, err := fio(ctx, p.export(onlineVM), size, "--rw=randwrite", "--bs=4k", "--iodepth=16", fmt.Sprintf("--io_size=%d", size/100)); err != nil {
		return r, 0, 0, err
	}
	began := time.Now()
	if err := load.Start(); err != nil {
		return r, 0, 0, err
	}
	time.Sleep(2 * onlineLead)
	r, err = p.timed(ctx, "resume", onlineVM, "--resynchronize")
	_ = load.Process.Signal(os.Interrupt) // it says then what it did
	if ended := load.Wait(); err != nil {
		return r, 0, 0, errors.Join(err, ended)
	}
	rates, err := os.ReadFile(log + "_bw.1.log")
	if err != nil {
		return r, 0, 0, fmt.Errorf("%w: fio said %s", err, said.String())
	}
	alone = rateOf(string(rates), began.Add(onlineLead), began.Add(2*onlineLead))
	beside = rateOf(string(rates), r.start, r.start.Add(r.took))
	return r, alone, beside, nil
}

// rateOf is how many bytes a second fio wrote in a time, by its log: a line for each tick in which it wrote.
func rateOf(log string, from, to time.Time) float64 {
	written := 0.0
	for line := range strings.Lines(log) {
		var at, kibPerSecond int64
		if n, _ := fmt.Sscanf(line, "%d, %d,", &at, &kibPerSecond); n == 2 && at > from.UnixMilli() && at <= to.UnixMilli() {
			written += float64(kibPerSecond*kib) * onlineTick.Seconds()
		}
	}
	return written / to.Sub(from).Seconds()
}
