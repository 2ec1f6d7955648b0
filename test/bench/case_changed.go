package main

import (
	"context"
	"time"

	"github.com/klauspost/compress/zstd"
)

// What changed blocks are to cost: of rsync's time, and of their own compressed size and the image's.
const (
	changedLimit      = 0.15
	changedWireFactor = 1.10
	changedWireShare  = 0.0005
)

// changedRound is one round of runChanged.
type changedRound struct {
	ours   resyncTime
	theirs rsyncTime
	// wire is what the kernel counted, least the compressed size of what was changed.
	wire, least int64
}

// runChanged measures a resync after 1 % of the image was rewritten against rsync, warm.
func runChanged(ctx context.Context, b *bench) error {
	s, err := b.shared(ctx)
	if err != nil {
		return err
	}
	if err := s.warm(ctx, b); err != nil {
		return err
	}
	var rounds []changedRound
	for i := range b.rounds {
		r, err := changeOnce(ctx, b, s, uint64(i+1))
		if err != nil {
			return err
		}
		rounds = append(rounds, r)
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	b.reportChanged(rounds)
	return nil
}

func changeOnce(ctx context.Context, b *bench, s *sharedImages, seed uint64) (changedRound, error) {
	var r changedRound
	count := int(b.size / int64(subBlock) / 100)
	content, err := rewriteShared(s.primary, b.size, count, seed)
	if err != nil {
		return r, err
	}
	if r.least, err = compressedSize(content); err != nil {
		return r, err
	}
	before, err := countWire(ctx, s.pair.replicaAddress)
	if err != nil {
		return r, err
	}
	if r.ours, err = s.pair.resync(ctx, sharedVM); err != nil {
		return r, err
	}
	after, err := countWire(ctx, s.pair.replicaAddress)
	if err != nil {
		return r, err
	}
	if r.wire, err = after.since(before); err != nil {
		return r, err
	}
	r.theirs, err = s.rsync.copy(ctx, s.primary)
	return r, err
}

// compressedSize is that of all content in one piece, at the compressor's fastest.
func compressedSize(content []byte) (int64, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return 0, err
	}
	defer encoder.Close()
	return int64(len(encoder.EncodeAll(content, nil))), nil
}

func (b *bench) reportChanged(rounds []changedRound) {
	took := medianOf(rounds, func(r changedRound) time.Duration { return r.ours.took })
	rsync := medianOf(rounds, func(r changedRound) time.Duration { return r.theirs.wall })
	wire := medianOf(rounds, func(r changedRound) int64 { return r.wire })
	least := medianOf(rounds, func(r changedRound) int64 { return r.least })
	allowed := changedWireFactor*float64(least) + changedWireShare*float64(b.size)
	b.table.add("1 % rewritten, ours ÷ rsync", took.Seconds()/rsync.Seconds(), changedLimit, "%.3f")
	b.table.add("1 % rewritten, wire in MB", float64(wire)/1e6, allowed/1e6, "%.2f")
	b.table.note("2: ours %s to the commit, %s to the end of the merge (primary %s and replica %s of CPU), rsync %s.",
		seconds(took), seconds(medianOf(rounds, func(r changedRound) time.Duration { return r.ours.wall })),
		seconds(medianOf(rounds, func(r changedRound) time.Duration { return r.ours.primaryCPU })),
		seconds(medianOf(rounds, func(r changedRound) time.Duration { return r.ours.replicaCPU })), seconds(rsync))
	last := rounds[len(rounds)-1]
	b.table.note("2: changed %s, compressed %s; on the wire %s as the kernel counts both directions of the connections (TLS included), "+
		"%s sent and %s received as the primary counts; rsync %s.",
		bytesText(last.ours.differing), bytesText(least), bytesText(wire), bytesText(last.ours.sent),
		bytesText(last.ours.received), bytesText(medianOf(rounds, func(r changedRound) int64 { return r.theirs.wire })))
}
