package pagecache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"vmreplica/internal/durable"
)

// modelFile answers every read; only its reads are asked for.
type modelFile struct{ durable.File }

func (modelFile) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

func (modelFile) Close() error { return nil }

// modelCache is a page cache by windows; what was read is in it.
type modelCache struct {
	cached  map[int64]bool
	dropped []int64
}

func (c *modelCache) cold(off, _ int64) bool { return !c.cached[off/windowBytes] }

func (c *modelCache) drop(off, _ int64) {
	c.dropped = append(c.dropped, off/windowBytes)
	delete(c.cached, off/windowBytes)
}

// read reads windows, and as the kernel does some of what follows.
func (c *modelCache) read(t *testing.T, f durable.File, windows ...int64) {
	t.Helper()
	buffer := make([]byte, windowBytes/8)
	for _, window := range windows {
		for off := window * windowBytes; off < (window+1)*windowBytes; off += windowBytes / 8 {
			if _, err := f.ReadAt(buffer, off); err != nil {
				t.Fatal(err)
			}
			c.cached[window] = true
			if off > (window+1)*windowBytes-windowBytes/4 {
				c.cached[window+1] = true
			}
		}
	}
}

func span(first, last int64) []int64 {
	var windows []int64
	for w := first; w <= last; w++ {
		windows = append(windows, w)
	}
	return windows
}

func TestWhatWasColdIsDroppedALagLater(t *testing.T) {
	c := &modelCache{cached: map[int64]bool{}}
	f := newFile(modelFile{}, c)
	c.read(t, f, span(0, 99)...)
	if want := span(0, 99-lagWindows-1); !slices.Equal(c.dropped, want) {
		t.Errorf("dropped %v, want %v", c.dropped, want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.cached) != 0 {
		t.Errorf("after the end %v are cached", c.cached)
	}
}

func TestWhatWasWarmStays(t *testing.T) {
	warm := []int64{3, 4, 5, 17, 40, 41, 99}
	c := &modelCache{cached: map[int64]bool{}}
	for _, w := range warm {
		c.cached[w] = true
	}
	f := newFile(modelFile{}, c)
	c.read(t, f, span(0, 99)...)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, w := range warm {
		if !c.cached[w] {
			t.Errorf("window %d was warm and is not", w)
		}
	}
	if len(c.dropped) < 99-len(warm) {
		t.Errorf("only %v were dropped", c.dropped)
	}
}

func TestReadsWithinTheLagDropNothing(t *testing.T) {
	c := &modelCache{cached: map[int64]bool{}}
	f := newFile(modelFile{}, c)
	c.read(t, f, span(0, lagWindows)...)
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		c.read(t, f, random.Int64N(lagWindows+1))
	}
	if len(c.dropped) > 0 {
		t.Errorf("dropped %v", c.dropped)
	}
}

// TestAnyOrder asks that reads in any order drop nothing that was warm, and leave little of what was cold.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			c := &modelCache{cached: map[int64]bool{}}
			var warm []int64
			for range 20 {
				w := 2 * random.Int64N(100)
				warm = append(warm, w)
				c.cached[w] = true
			}
			f := newFile(modelFile{}, c)
			for range 30 {
				first := random.Int64N(180)
				c.read(t, f, span(first, first+random.Int64N(20))...)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			for _, w := range warm {
				if !c.cached[w] {
					t.Errorf("window %d was warm and is not", w)
				}
			}
		})
	}
}
