package durabletest_test

import (
	"bytes"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

const page = 4096

// far are page numbers around which the sparse tests write: at the edges of the tree's levels and far out.
var far = []int64{0, 62, 64*64 - 2, 1 << 18, 1<<30 - 2}

// TestSparseHistories does random operations on whole pages of a huge file and on a map of its pages.
func TestSparseHistories(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 3))
		_, file := started(t, "")
		check(t, file.Truncate(1<<31*page))
		model := map[int64]byte{}
		for range 80 {
			first := far[random.IntN(len(far))] + random.Int64N(4)
			n := 1 + random.Int64N(5)
			if random.IntN(8) == 0 {
				n = 1 << 29
			}
			sparseStep(t, random, file, model, first, n)
		}
		comparePages(t, file, model)
	}
}

func sparseStep(t *testing.T, random *rand.Rand, file durable.File, model map[int64]byte, first, n int64) {
	switch random.IntN(4) {
	case 0, 1:
		n = min(n, 5)
		fill := byte(1 + random.IntN(255))
		put(t, file, first*page, string(bytes.Repeat([]byte{fill}, int(n)*page)))
		for i := range n {
			model[first+i] = fill
		}
	case 2:
		check(t, file.Punch(first*page, n*page))
		maps.DeleteFunc(model, func(at int64, _ byte) bool { return at >= first && at < first+n })
	case 3:
		check(t, file.ZeroRange(first*page, min(n, 5)*page))
		maps.DeleteFunc(model, func(at int64, _ byte) bool { return at >= first && at < first+min(n, 5) })
	}
}

// comparePages finds the pages with data and compares them and their content.
func comparePages(t *testing.T, file durable.File, model map[int64]byte) {
	t.Helper()
	var found []int64
	for off := int64(0); ; {
		start, end, err := file.SeekData(off)
		if err == io.EOF {
			break
		}
		check(t, err)
		for at := start / page; at < end/page; at++ {
			found = append(found, at)
		}
		off = end
	}
	if want := slices.Sorted(maps.Keys(model)); !slices.Equal(found, want) {
		t.Fatalf("data in pages %v, want %v", found, want)
	}
	for at, fill := range model {
		got := make([]byte, page)
		_, err := file.ReadAt(got, at*page)
		check(t, err)
		if !bytes.Equal(got, bytes.Repeat([]byte{fill}, page)) {
			t.Fatalf("page %d differs", at)
		}
	}
}

func TestWhatIsDoneAfterACrashStaysThere(t *testing.T) {
	recorder, file := started(t, "old")
	put(t, file, page, "more")
	for crash := range recorder.Crashes(durabletest.Options{}) {
		if contentOf(t, crash.Dir(), "a") == "none" {
			continue
		}
		again, err := crash.Dir().Open("a", durable.ReadWrite)
		check(t, err)
		put(t, again, 0, "X")
		check(t, again.Truncate(1))
		check(t, again.Close())
	}
	if got := contentOf(t, recorder.Dir(), "a"); len(got) != page+4 || got[:3] != "old" {
		t.Errorf("the recorder's own file now begins with %q, %d bytes", got[:3], len(got))
	}
}

// Few positions are enough to see a sync that is missing: the last one before the next sync is always tried.
func TestSparsePositionsStillShowAMissingSync(t *testing.T) {
	count := func(drop func(durabletest.Op) bool) (lost, states int) {
		recorder, file := started(t, "old")
		recorder.Drop(drop)
		for range 200 {
			put(t, file, 0, "new")
		}
		check(t, file.Sync())
		recorder.Mark("promised")
		for crash := range recorder.Crashes(durabletest.Options{Every: 1000}) {
			states++
			if len(crash.Marks()) > 0 && contentOf(t, crash.Dir(), "a") != "new" {
				lost++
			}
		}
		return lost, states
	}
	if lost, states := count(nil); lost > 0 || states > 300 {
		t.Errorf("%d of %d states lost what was promised", lost, states)
	}
	if lost, _ := count(durabletest.SyncOf("a")); lost == 0 {
		t.Error("the missing sync is not seen")
	}
}
