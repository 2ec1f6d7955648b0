package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	// firstGrowth is how much later the first differing byte may leave on the largest disk than on the smallest.
	firstGrowth = 100 * time.Millisecond
	// firstThreshold is more than the primary says before content and less than the 64 KiB of the block that differs.
	firstThreshold = 32 * kib
)

// firstSizes are the disks': two that are all data, and a sparse one with the data of the first.
func (b *bench) firstSizes() [3]int64 {
	if b.quick {
		return [3]int64{256 * mib, gib, 16 * tib}
	}
	return [3]int64{gib, 4 * gib, 16 * tib}
}

// runFirst measures the time from a resync's start to the first byte of content that leaves the primary, on disks
// whose first block differs. A proxy between the agents, which cannot read what it hands on, takes the moment at
// which the primary has sent more than it says beside content.
func runFirst(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "first")
	v, err := makeVolume(ctx, dir, 8*b.firstSizes()[1])
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
	between, err := startProxy(p.replicaAddress)
	if err != nil {
		return err
	}
	defer between.stop()
	sizes := b.firstSizes()
	for i, size := range sizes {
		if err := scatter(p.image(firstVM(i)), size, min(size, sizes[i%2]), uint64(i)); err != nil {
			return err
		}
		if err := duplicate(ctx, p.image(firstVM(i)), p.held(firstVM(i))); err != nil {
			return err
		}
		if err := p.adopt(ctx, firstVM(i), between.address()); err != nil {
			return err
		}
	}
	var delays [3][]time.Duration
	for range b.rounds {
		for i := range sizes {
			delay, err := firstOnce(ctx, p, between, firstVM(i))
			if err != nil {
				return err
			}
			delays[i] = append(delays[i], delay)
		}
	}
	b.reportFirst(sizes, delays)
	return nil
}

func firstVM(i int) string { return fmt.Sprintf("first%d", i) }

// firstOnce rewrites the first 64 KiB of a VM's image, resynchronizes it and compares.
func firstOnce(ctx context.Context, p *pair, between *proxy, vm string) (time.Duration, error) {
	if _, err := rewriteRandom(p.image(vm), 64*kib, 16, uint64(time.Now().UnixNano())); err != nil {
		return 0, err
	}
	between.watch(firstThreshold)
	r, err := p.resync(ctx, vm)
	if err != nil {
		return 0, err
	}
	at, passed := between.when()
	if !passed {
		return 0, errors.New("the proxy saw no content go by")
	}
	return at.Sub(r.start), compareData(p.image(vm), p.held(vm))
}

func (b *bench) reportFirst(sizes [3]int64, delays [3][]time.Duration) {
	var texts []string
	var medians [3]time.Duration
	for i, size := range sizes {
		medians[i] = median(delays[i])
		texts = append(texts, fmt.Sprintf("%s of %s", seconds(medians[i]), bytesText(size)))
	}
	growth := max(medians[1], medians[2]) - medians[0]
	b.table.add("start to first differing byte, seconds more on the largest", growth.Seconds(), firstGrowth.Seconds(), "%.3f")
	b.table.note("6: from startTime to the moment at which a proxy on the way had seen %d KiB from the primary: %s; the last is sparse.",
		firstThreshold/kib, strings.Join(texts, ", "))
}
