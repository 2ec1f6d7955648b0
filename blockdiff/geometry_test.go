package blockdiff_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"vmreplica/blockdiff"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

func geometry(t testing.TB, size int64) blockdiff.Geometry {
	t.Helper()
	g, err := blockdiff.NewGeometry(size)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestNewGeometryRefuses(t *testing.T) {
	for sentence, size := range map[string]int64{
		"an empty disk":            0,
		"a negative size":          -512,
		"the smallest number":      math.MinInt64,
		"less than a sector":       511,
		"a part of a sector":       513,
		"a sector above the limit": blockdiff.MaxDiskSize + 512,
		"the largest number":       math.MaxInt64,
	} {
		t.Run(sentence, func(t *testing.T) {
			if g, err := blockdiff.NewGeometry(size); !errors.Is(err, blockdiff.ErrGeometry) || g.Blocks() != 0 {
				t.Fatalf("size %d: %d blocks, error %v", size, g.Blocks(), err)
			}
		})
	}
}

func TestGeometryCounts(t *testing.T) {
	for sentence, c := range map[string]struct{ size, blocks, segments, lastBlock, lastSegment int64 }{
		"one sector":                  {512, 1, 1, 512, 512},
		"one block":                   {64 * kib, 1, 1, 64 * kib, 64 * kib},
		"one block and a sector":      {64*kib + 512, 2, 1, 512, 64*kib + 512},
		"one segment":                 {16 * mib, 256, 1, 64 * kib, 16 * mib},
		"one segment and a sector":    {16*mib + 512, 257, 2, 512, 512},
		"the largest disk":            {64 * tib, 1 << 30, 1 << 22, 64 * kib, 16 * mib},
		"the largest less one sector": {64*tib - 512, 1 << 30, 1 << 22, 64*kib - 512, 16*mib - 512},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := geometry(t, c.size)
			_, lastBlock := g.BlockRange(c.blocks - 1)
			_, lastSegment := g.SegmentRange(c.segments - 1)
			if g.Size() != c.size || g.Blocks() != c.blocks || g.Segments() != c.segments ||
				lastBlock != c.lastBlock || lastSegment != c.lastSegment {
				t.Fatalf("blocks %d, segments %d, last block %d, last segment %d",
					g.Blocks(), g.Segments(), lastBlock, lastSegment)
			}
		})
	}
}

func TestGeometryTilesTheDisk(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		g := geometry(t, 512*(1+random.Int64N(100_000)))
		var end, block int64
		for segment := range g.Segments() {
			offset, length := g.SegmentRange(segment)
			first, count := g.SegmentBlocks(segment)
			if offset != end || length <= 0 || first != block || count < 1 {
				t.Fatalf("size %d segment %d: %d+%d, blocks %d+%d", g.Size(), segment, offset, length, first, count)
			}
			for ; block < first+count; block++ {
				offset, length := g.BlockRange(block)
				if offset != end || length <= 0 || length > blockdiff.BlockSize {
					t.Fatalf("size %d block %d: %d+%d after %d", g.Size(), block, offset, length, end)
				}
				end += length
			}
		}
		if end != g.Size() || block != g.Blocks() {
			t.Fatalf("size %d: tiles end at %d, block %d", g.Size(), end, block)
		}
	}
}

func TestGeometryHasNothingOutsideTheDisk(t *testing.T) {
	g := geometry(t, 20*mib+512)
	outside := []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt64 / blockdiff.BlockSize}
	for _, block := range append(outside, g.Blocks()) {
		if _, length := g.BlockRange(block); length != 0 {
			t.Errorf("block %d has %d bytes", block, length)
		}
	}
	for _, segment := range append(outside, g.Segments()) {
		if _, length := g.SegmentRange(segment); length != 0 {
			t.Errorf("segment %d has %d bytes", segment, length)
		}
		if _, count := g.SegmentBlocks(segment); count != 0 {
			t.Errorf("segment %d has %d blocks", segment, count)
		}
	}
}
