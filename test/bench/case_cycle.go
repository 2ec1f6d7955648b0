package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// What a cycle may cost: of the primary's processor on an idle disk, and on the wire of the changed blocks' size.
const (
	idleLimit      = 20 * time.Millisecond
	deltaWireLimit = 1.10
)

// The disks of the idle machines, and how many of their cycles are measured.
const (
	idleSize   = tib
	idleCycles = 8
	idleData   = 64 * mib // written before, all over the disk
)

// deltaSize is the image's whose delta is measured.
const deltaSize = gib

// runCycle measures a cycle on a disk of 1 TiB that has one changed block, with little and with much data, and the bytes of a cycle that
// ships scattered changes.
func runCycle(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "cycle")
	defer os.RemoveAll(dir)
	p, err := startPair(ctx, b, setting{dir: dir, images: filepath.Join(dir, "images"), storage: filepath.Join(dir, "storage")})
	if err != nil {
		return err
	}
	defer p.stop()
	var times []time.Duration
	for _, data := range []int64{idleData, 8 * idleData} {
		vm := fmt.Sprintf("idle%d", data/mib)
		if err := scatter(p.image(vm), idleSize, data, 6); err != nil {
			return err
		}
		took, err := p.idleCycle(ctx, vm)
		if err != nil {
			return err
		}
		times = append(times, took)
		if _, err := p.ask(ctx, "", p.primaryAddress, "remove", vm); err != nil {
			return err
		}
	}
	b.table.add("a cycle on an idle disk of 1 TiB, ms of CPU", times[0].Seconds()*1000, idleLimit.Seconds()*1000, "%.1f")
	b.table.add("the same with 8 times the data", times[1].Seconds()*1000, idleLimit.Seconds()*1000, "%.1f")
	b.table.note("12: %d cycles that ship one block each, %v apart; all that the primary does meanwhile, in steps of 10 ms.", idleCycles, cycleInterval)
	return b.deltaWire(ctx, p)
}

// idleCycle is the primary's processor time for a cycle of a machine that changes one block in each.
func (p *pair) idleCycle(ctx context.Context, vm string) (took time.Duration, err error) {
	if err := p.protect(ctx, vm); err != nil {
		return 0, err
	}
	machine, err := attach(ctx, p.export(vm))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, machine.detach()) }()
	beat := func(number int) error {
		defer time.Sleep(cycleInterval) // nobody asks the agent anything meanwhile
		return machine.do(fmt.Sprintf("write -q -P %d 0 4k", number+1))
	}
	if err := beat(0); err != nil {
		return 0, err
	}
	first, err1 := p.status(ctx, vm)
	before, err2 := p.primary.cpu()
	for i := range idleCycles {
		err = errors.Join(err, beat(i+1))
	}
	after, err3 := p.primary.cpu()
	last, err4 := p.status(ctx, vm)
	if err := errors.Join(err, err1, err2, err3, err4); err != nil {
		return 0, err
	}
	cycles := last.GetStatistics().GetCyclesCompleted() - first.GetStatistics().GetCyclesCompleted()
	if cycles < idleCycles/2 {
		return 0, fmt.Errorf("only %d cycles were completed", cycles)
	}
	return (after - before) / time.Duration(cycles), nil
}

// deltaWire measures what a cycle of scattered changes puts on the wire.
func (b *bench) deltaWire(ctx context.Context, p *pair) error {
	const vm = "delta"
	if err := buildImage(ctx, p.image(vm), deltaSize); err != nil {
		return err
	}
	if err := p.protect(ctx, vm); err != nil {
		return err
	}
	var ratios []float64
	var wires, leasts []int64
	for i := range b.rounds {
		wire, least, err := p.deltaOnce(ctx, vm, uint64(i+1))
		if err != nil {
			return err
		}
		ratios, wires, leasts = append(ratios, float64(wire)/float64(least)), append(wires, wire), append(leasts, least)
	}
	if err := p.checkContent(ctx, vm); err != nil {
		return err
	}
	b.table.add("bytes of a delta, wire ÷ zstd", median(ratios), deltaWireLimit, "%.3f")
	b.table.note("12: 1 %% of the 4 KiB blocks of %s, in no order; on the wire %s, both directions, TLS included; all of them compressed in one piece %s.",
		bytesText(deltaSize), bytesText(median(wires)), bytesText(median(leasts)))
	return nil
}

// deltaOnce has the machine change 1 % of its blocks and ships them in one cycle.
func (p *pair) deltaOnce(ctx context.Context, vm string, seed uint64) (wire, least int64, err error) {
	if err := p.suspend(ctx, vm); err != nil {
		return 0, 0, err
	}
	content, err := p.change(ctx, vm, deltaSize/int64(subBlock)/100, seed)
	if err != nil {
		return 0, 0, err
	}
	if least, err = compressedSize(content); err != nil {
		return 0, 0, err
	}
	before, err := countWire(ctx, p.replicaAddress)
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(p.resume(ctx, vm), p.sent(ctx, vm)); err != nil {
		return 0, 0, err
	}
	after, err := countWire(ctx, p.replicaAddress)
	if err != nil {
		return 0, 0, err
	}
	wire, err = after.since(before)
	return wire, least, err
}

// change has a machine write blocks like those of its image all over it, and answers what it wrote, in the order of the disk.
func (p *pair) change(ctx context.Context, vm string, count int64, seed uint64) (content []byte, err error) {
	image, err := os.Open(p.image(vm))
	if err != nil {
		return nil, err
	}
	defer image.Close()
	pieces, err := os.MkdirTemp(p.dir, "pieces-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(pieces)
	machine, err := attach(ctx, p.export(vm))
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(seed, uint64(deltaSize)))
	for i, block := range somewhere(random, deltaSize/int64(subBlock), int(count)) {
		piece := make([]byte, subBlock)
		if err := takeElsewhere(image, deltaSize, random, piece); err != nil {
			return nil, errors.Join(err, machine.detach())
		}
		name := filepath.Join(pieces, fmt.Sprint(i))
		if err := os.WriteFile(name, piece, 0o600); err != nil {
			return nil, errors.Join(err, machine.detach())
		}
		if err := machine.do(fmt.Sprintf("write -q -s %s %d 4k", name, block*int64(subBlock))); err != nil {
			return nil, errors.Join(err, machine.detach())
		}
		content = append(content, piece...)
	}
	return content, machine.detach()
}
