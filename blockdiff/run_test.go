package blockdiff_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"vmreplica/blockdiff"
)

func TestCheckRunAccepts(t *testing.T) {
	g := geometry(t, 10*64*kib+512)
	for sentence, run := range map[string]blockdiff.Run{
		"digests at the start":     {Kind: blockdiff.RunDigests, First: 0, Count: 2, Digests: []uint64{1, 2}},
		"zeros in the middle":      {Kind: blockdiff.RunZero, First: 3, Count: 4},
		"a hole up to the end":     {Kind: blockdiff.RunHole, First: 5, Count: 6},
		"the last and short block": {Kind: blockdiff.RunDigests, First: 10, Count: 1, Digests: []uint64{7}},
	} {
		t.Run(sentence, func(t *testing.T) {
			if err := blockdiff.CheckRun(g, run.First, run); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestCheckRunRefuses(t *testing.T) {
	g := geometry(t, 10*64*kib)
	for sentence, c := range map[string]struct {
		next int64
		run  blockdiff.Run
	}{
		"an unknown kind":            {0, blockdiff.Run{Kind: 4, Count: 1}},
		"no kind":                    {0, blockdiff.Run{Count: 1}},
		"a gap":                      {1, blockdiff.Run{Kind: blockdiff.RunZero, First: 2, Count: 1}},
		"going back":                 {2, blockdiff.Run{Kind: blockdiff.RunZero, First: 1, Count: 1}},
		"a start below the disk":     {-1, blockdiff.Run{Kind: blockdiff.RunZero, First: -1, Count: 1}},
		"a start behind the disk":    {10, blockdiff.Run{Kind: blockdiff.RunZero, First: 10, Count: 1}},
		"no blocks":                  {0, blockdiff.Run{Kind: blockdiff.RunZero}},
		"a negative count":           {0, blockdiff.Run{Kind: blockdiff.RunHole, Count: -1}},
		"an end behind the disk":     {9, blockdiff.Run{Kind: blockdiff.RunZero, First: 9, Count: 2}},
		"a sum that overflows":       {9, blockdiff.Run{Kind: blockdiff.RunZero, First: 9, Count: math.MaxInt64}},
		"a start that overflows":     {math.MaxInt64, blockdiff.Run{Kind: blockdiff.RunZero, First: math.MaxInt64, Count: 1}},
		"a digest too few":           {0, blockdiff.Run{Kind: blockdiff.RunDigests, Count: 2, Digests: []uint64{1}}},
		"a digest too many":          {0, blockdiff.Run{Kind: blockdiff.RunDigests, Count: 1, Digests: []uint64{1, 2}}},
		"digests of zeros":           {0, blockdiff.Run{Kind: blockdiff.RunZero, Count: 1, Digests: []uint64{1}}},
		"digests of a hole":          {0, blockdiff.Run{Kind: blockdiff.RunHole, Count: 1, Digests: []uint64{1}}},
		"digests that are not there": {0, blockdiff.Run{Kind: blockdiff.RunDigests, Count: 1}},
	} {
		t.Run(sentence, func(t *testing.T) {
			if err := blockdiff.CheckRun(g, c.next, c.run); !errors.Is(err, blockdiff.ErrRun) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestNothingRunsOnTheZeroGeometry(t *testing.T) {
	run := blockdiff.Run{Kind: blockdiff.RunZero, Count: 1}
	if err := blockdiff.CheckRun(blockdiff.Geometry{}, 0, run); !errors.Is(err, blockdiff.ErrRun) {
		t.Fatalf("got %v", err)
	}
}

func TestPackedDigests(t *testing.T) {
	digests := []uint64{0x0102030405060708, 0, math.MaxUint64}
	packed := blockdiff.PackDigests([]byte{0xff}, digests)
	want := "\xff\x08\x07\x06\x05\x04\x03\x02\x01" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\xff\xff\xff\xff\xff\xff\xff\xff"
	if string(packed) != want {
		t.Fatalf("packed % x", packed)
	}
	unpacked, err := blockdiff.UnpackDigests(packed[1:])
	if err != nil || !slices.Equal(unpacked, digests) {
		t.Fatalf("unpacked %v, error %v", unpacked, err)
	}
	if _, err := blockdiff.UnpackDigests(packed); !errors.Is(err, blockdiff.ErrRun) {
		t.Fatalf("a part of a digest: %v", err)
	}
}
