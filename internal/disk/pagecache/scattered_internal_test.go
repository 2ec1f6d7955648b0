package pagecache

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAScatteredPassLeavesTheCacheAsItWas(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 9))
		c := &modelCache{cached: map[int64]bool{}}
		var warmBefore []int64
		for w := range int64(60) {
			if random.IntN(4) == 0 {
				c.cached[w] = true
				warmBefore = append(warmBefore, w)
			}
		}
		f := newScattered(modelFile{}, c)
		for range 30 {
			c.read(t, f, random.Int64N(58))
			coldNow := 0
			for w := range c.cached {
				if !slices.Contains(warmBefore, w) {
					coldNow++
				}
			}
			if limit := 2*dropAfter/windowBytes + 2; coldNow > limit {
				t.Fatalf("seed %d: %d cold windows are cached", seed, coldNow)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		var after []int64
		for w := range c.cached {
			after = append(after, w)
		}
		slices.Sort(after)
		if !slices.Equal(after, warmBefore) {
			t.Fatalf("seed %d: cached %v, before it %v", seed, after, warmBefore)
		}
	}
}

// lookedAt counts how often each window is looked at.
type lookedAt struct {
	*modelCache
	times map[int64]int
}

func (l lookedAt) cold(off, n int64) bool {
	l.times[off/windowBytes]++
	return l.modelCache.cold(off, n)
}

func TestAScatteredPassLooksOnce(t *testing.T) {
	l := lookedAt{&modelCache{cached: map[int64]bool{}}, map[int64]int{}}
	f := newScattered(modelFile{}, l)
	random := rand.New(rand.NewPCG(1, 9))
	for range 2000 {
		if _, err := f.ReadAt(make([]byte, 64<<10), random.Int64N(100*windowBytes)); err != nil {
			t.Fatal(err)
		}
	}
	for w, times := range l.times {
		if times != 1 || w > 100 {
			t.Errorf("window %d was looked at %d times", w, times)
		}
	}
}

func TestAScatteredPassIsBounded(t *testing.T) {
	f := newScattered(modelFile{}, &modelCache{cached: map[int64]bool{}})
	for _, off := range []int64{maxWindows*windowBytes - 1, maxWindows * windowBytes, 1 << 60, math.MaxInt64 - 64<<10} {
		if _, err := f.ReadAt(make([]byte, 64<<10), off); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.windows) > maxWindows {
		t.Errorf("%d windows are remembered", len(f.windows))
	}
}
