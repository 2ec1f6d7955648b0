package main

import (
	"context"
	"path/filepath"
	"time"
)

// What a disk of 16 TiB may cost more than its data alone, and the memory of each agent.
const (
	sparseLimit  = 5 * time.Second
	memoryLimit  = 256 * mib
	sparseSize   = 16 * tib
	sparseVM     = "sparse"
	aloneVM      = "alone"
	sparseChange = 64 // blocks of 4 KiB rewritten before each resync
)

// sparseData is how much data the sparse disk holds.
func (b *bench) sparseData() int64 {
	if b.quick {
		return 256 * mib
	}
	return 2 * gib
}

// runSparse measures a resync of a huge disk that is almost all hole against one of a disk that is its data alone.
func runSparse(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "sparse")
	v, err := makeVolume(ctx, dir, 16*b.sparseData())
	if v != nil {
		defer v.remove()
	}
	if err != nil {
		return err
	}
	p, err := startPair(ctx, b, setting{dir: dir,
		images: filepath.Join(v.mount, "images"), storage: filepath.Join(v.mount, "storage")})
	if err != nil {
		return err
	}
	defer p.stop()
	for vm, size := range map[string]int64{aloneVM: b.sparseData(), sparseVM: sparseSize} {
		if err := scatter(p.image(vm), size, b.sparseData(), 1); err != nil {
			return err
		}
		if err := duplicate(ctx, p.image(vm), p.held(vm)); err != nil {
			return err
		}
		if err := p.adopt(ctx, vm, ""); err != nil {
			return err
		}
	}
	var alone, sparse []resyncTime
	for i := range b.rounds {
		small, err := sparseOnce(ctx, p, aloneVM, uint64(i+1))
		if err != nil {
			return err
		}
		huge, err := sparseOnce(ctx, p, sparseVM, uint64(i+1))
		if err != nil {
			return err
		}
		alone, sparse = append(alone, small), append(sparse, huge)
	}
	return b.reportSparse(p, alone, sparse)
}

// sparseOnce changes a little of a VM's first MiB of data, resynchronizes and compares.
func sparseOnce(ctx context.Context, p *pair, vm string, seed uint64) (resyncTime, error) {
	if _, err := rewriteRandom(p.image(vm), mib, sparseChange, seed); err != nil {
		return resyncTime{}, err
	}
	r, err := p.resync(ctx, vm)
	if err != nil {
		return r, err
	}
	return r, compareData(p.image(vm), p.held(vm))
}

func (b *bench) reportSparse(p *pair, alone, sparse []resyncTime) error {
	took := func(r resyncTime) time.Duration { return r.took }
	least, most := medianOf(alone, took), medianOf(sparse, took)
	b.table.add("16 TiB sparse, seconds more than its data alone", (most - least).Seconds(), sparseLimit.Seconds(), "%.2f")
	for _, agent := range []struct {
		name    string
		process *process
	}{{"primary", p.primary}, {"replica", p.replica}} {
		peak, err := agent.process.peak()
		if err != nil {
			return err
		}
		b.table.add("16 TiB sparse, MiB resident in the "+agent.name, float64(peak)/float64(mib), float64(memoryLimit)/float64(mib), "%.0f")
	}
	b.table.note("5: %s of data in pieces of 1 MiB all over 16 TiB on XFS: ours %s (%s of CPU); the data alone %s (%s). Resident is VmHWM after all rounds.",
		bytesText(b.sparseData()), seconds(most), seconds(medianOf(sparse, resyncTime.cpu)), seconds(least), seconds(medianOf(alone, resyncTime.cpu)))
	return nil
}
