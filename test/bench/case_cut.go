package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/replication"
)

// What a cut may hold writes for, and what tracking may map.
const (
	heldLimit     = 5 * time.Millisecond
	trackingLimit = 68 * mib // of a disk of 1 TiB
)

// A cut's disks, how long each of their flushes takes, and how many cuts are made.
const (
	cutDisks   = 4
	cutFlush   = 30 * time.Millisecond
	cutsMade   = 500
	cutWrites  = 50 // between one cut and the next, at least
	writePause = 20 * time.Microsecond
)

// runCut measures how long cuts over four disks of 1 TiB hold their writes, with slow flushes beside them.
func runCut(ctx context.Context, b *bench) error {
	v, err := openVoids(ctx, b, cutDisks, tib, cutFlush)
	if err != nil {
		return err
	}
	var written atomic.Int64
	loaded, stop := context.WithCancel(ctx)
	defer stop()
	load, loaded := errgroup.WithContext(loaded)
	for _, d := range v.disks {
		load.Go(func() error { return writeUntil(loaded, d, &written) })
		load.Go(func() error { return flushUntil(loaded, d) })
	}
	held, err := cuts(loaded, v, &written)
	stop()
	if err := errors.Join(err, load.Wait(), v.close()); err != nil {
		return err
	}
	slices.Sort(held)
	p99 := held[len(held)*99/100]
	b.table.add("a cut over 4 disks of 1 TiB, ms held at p99", p99.Seconds()*1000, heldLimit.Seconds()*1000, "%.3f")
	b.table.note("11: %d cuts, %d writes, a flush of %v after the other on each disk; held %v at the median, %v at most.",
		len(held), written.Load(), cutFlush, median(held), held[len(held)-1])
	return b.trackingMemory(ctx)
}

// writeUntil writes 4 KiB blocks all over the disk.
func writeUntil(ctx context.Context, d *tracking.Disk, written *atomic.Int64) error {
	const regions, blocks = 128, 1 << 15
	for p := make([]byte, subBlock); ctx.Err() == nil; written.Add(1) {
		off := rand.Int64N(regions)*(d.Size()/regions) + rand.Int64N(blocks)*int64(subBlock)
		if _, err := d.WriteAt(p, off); err != nil {
			return err
		}
		<-time.After(writePause) // a disk's speed, not the memory's
	}
	return nil
}

func flushUntil(ctx context.Context, d *tracking.Disk) error {
	for ctx.Err() == nil {
		if err := d.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// cuts answers how long each held writes.
func cuts(ctx context.Context, v *voids, written *atomic.Int64) (held []time.Duration, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for number := range int64(cutsMade) {
		for written.Load() < cutWrites*number {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-tick.C:
			}
		}
		cut, err := v.group.Cut(ctx, replication.NewID())
		if err != nil {
			return nil, err
		}
		held = append(held, v.group.Figures().Held)
		for i, d := range v.disks {
			if err := cut.Sent(i, 0, d.Size()); err != nil {
				return nil, err
			}
		}
		if err := cut.Ack(); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// trackingMemory measures what a wholly marked disk of 1 TiB maps, and what of it is resident.
func (b *bench) trackingMemory(ctx context.Context) (err error) {
	before, err := resident(os.Getpid())
	if err != nil {
		return err
	}
	v, err := openVoids(ctx, b, 1, tib, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	if err := v.markAll(ctx); err != nil {
		return err
	}
	mapped, err := v.logBytes(0)
	if err != nil {
		return err
	}
	after, err := resident(os.Getpid())
	if err != nil {
		return err
	}
	b.table.add("tracking of 1 TiB, MiB mapped", float64(mapped)/float64(mib), float64(trackingLimit)/float64(mib), "%.1f")
	b.table.add("the same wholly marked, MiB resident", float64(after-before)/float64(mib), float64(trackingLimit)/float64(mib), "%.1f")
	return nil
}

// markAll marks every block as live, in the epoch and as sent, one after the other.
func (v *voids) markAll(ctx context.Context) error {
	d := v.disks[0]
	if err := d.Trim(0, d.Size()); err != nil {
		return err
	}
	round, err := v.group.Round(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(round.Sent(0, 0, d.Size()), round.End(), d.Trim(0, d.Size())); err != nil {
		return err
	}
	if round, err = v.group.Round(ctx); err != nil {
		return err
	}
	return errors.Join(d.Trim(0, d.Size()), round.End())
}
