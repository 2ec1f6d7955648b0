package main

import (
	"context"
	"time"
)

const coldLimit = 1.10

// runCold measures a resync that finds nothing against two sequential reads, with neither image in the page cache.
func runCold(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	var reads []floorTime
	var ours []resyncTime
	measures := []func() error{
		func() error {
			read, err := floor(ctx, b, passRead, s.primary, s.replica)
			reads = append(reads, read)
			return err
		},
		func() error {
			resync, err := s.pair.resync(ctx, sharedVM)
			ours = append(ours, resync)
			return err
		},
	}
	for i := range b.rounds {
		if err := inTurn(i, measures, func() error { return s.cool(b) }); err != nil {
			return err
		}
		if err := compare(ctx, s.primary, s.replica); err != nil {
			return err
		}
	}
	least := medianOf(reads, func(f floorTime) time.Duration { return f.wall })
	took := medianOf(ours, func(r resyncTime) time.Duration { return r.took })
	b.table.add("cold cache, ours ÷ two reads", took.Seconds()/least.Seconds(), coldLimit, "%.2f")
	b.table.note("3: ours %s (%s of CPU), two concurrent sequential reads of both files, holes included, %s (%s of CPU, %.0f MB/s together).",
		seconds(took), seconds(medianOf(ours, resyncTime.cpu)), seconds(least),
		seconds(medianOf(reads, func(f floorTime) time.Duration { return f.cpu })), 2*float64(b.size)/1e6/least.Seconds())
	return nil
}

// cool takes both images out of the page cache.
func (s *sharedImages) cool(b *bench) error {
	for _, path := range []string{s.primary, s.replica} {
		if err := evict(path); err != nil {
			return err
		}
		share, err := cachedShare(path)
		if err != nil {
			return err
		}
		if share > 0.01 {
			b.table.note("The page cache still holds %.0f %% of an image: what is said to be cold is not.", 100*share)
		}
	}
	return nil
}
