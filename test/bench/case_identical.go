package main

import (
	"context"
	"time"
)

const identicalLimit = 1.3

// runIdentical measures a resync that finds nothing against the floor, warm.
func runIdentical(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	if err := s.warm(ctx, b); err != nil {
		return err
	}
	var floors, overData []floorTime
	var ours []resyncTime
	var theirs []rsyncTime
	for range b.rounds {
		whole, err := floor(ctx, b, passHash, s.primary, s.replica)
		if err != nil {
			return err
		}
		resync, err := s.pair.resync(ctx, sharedVM)
		if err != nil {
			return err
		}
		data, err := floor(ctx, b, passHashData, s.primary, s.replica)
		if err != nil {
			return err
		}
		copied, err := s.rsync.copy(ctx, s.primary)
		if err != nil {
			return err
		}
		floors, overData = append(floors, whole), append(overData, data)
		ours, theirs = append(ours, resync), append(theirs, copied)
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	wall := func(f floorTime) time.Duration { return f.wall }
	cpu := func(f floorTime) time.Duration { return f.cpu }
	least, took := medianOf(floors, wall), medianOf(ours, func(r resyncTime) time.Duration { return r.took })
	rsync := medianOf(theirs, func(r rsyncTime) time.Duration { return r.wall })
	b.table.add("identical images, ours ÷ floor", took.Seconds()/least.Seconds(), identicalLimit, "%.2f")
	b.table.note("1: ours %s (primary %s and replica %s of CPU), the floor %s (%s of CPU), holes left out %s (%s), rsync %s (%.2f × the floor).",
		seconds(took), seconds(medianOf(ours, func(r resyncTime) time.Duration { return r.primaryCPU })),
		seconds(medianOf(ours, func(r resyncTime) time.Duration { return r.replicaCPU })),
		seconds(least), seconds(medianOf(floors, cpu)), seconds(medianOf(overData, wall)), seconds(medianOf(overData, cpu)),
		seconds(rsync), rsync.Seconds()/least.Seconds())
	return nil
}
