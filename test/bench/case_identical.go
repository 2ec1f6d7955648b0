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
	passes := func(into *[]floorTime, kind string) func() error {
		return func() error {
			took, err := floor(ctx, b, kind, s.primary, s.replica)
			*into = append(*into, took)
			return err
		}
	}
	measures := []func() error{
		passes(&floors, passHash),
		func() error {
			took, err := s.pair.resync(ctx, sharedVM)
			ours = append(ours, took)
			return err
		},
		passes(&overData, passHashData),
		func() error {
			took, err := s.rsync.copy(ctx, s.primary)
			theirs = append(theirs, took)
			return err
		},
	}
	for i := range b.rounds {
		if err := inTurn(i, measures, func() error { return ctx.Err() }); err != nil {
			return err
		}
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	b.reportIdentical(floors, overData, ours, theirs)
	return nil
}

func (b *bench) reportIdentical(floors, overData []floorTime, ours []resyncTime, theirs []rsyncTime) {
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
}
