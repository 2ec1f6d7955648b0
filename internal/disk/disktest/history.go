package disktest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Each history is told by its seed, so that one that fails can be played again.
const (
	historySeeds = 24
	historySteps = 60
)

// histories plays random changes, flushes and reopenings against the model.
func histories(t *testing.T, s Subject, k kind) {
	for seed := range uint64(historySeeds) {
		size := sizes[seed%uint64(len(sizes))]
		t.Run(fmt.Sprintf("seed %d, %d bytes", seed, size), func(t *testing.T) { history(t, s, k, seed, size) })
	}
}

func history(t *testing.T, s Subject, k kind, seed uint64, size int64) {
	random := rand.New(rand.NewPCG(seed, 3))
	d, m := s.Open(t, size), newModel(size, k)
	for step := range historySteps {
		off, n := m.pick(random, size)
		switch what := random.IntN(12); {
		case what < 9:
			m.change(t, d, what%3, off, n)
		case what == 9:
			must(t, d.Flush())
		case what == 10 && s.Reopen != nil:
			must(t, d.Flush())
			d = s.Reopen(t, d)
		default:
			m.checkRange(t, d, off, n)
		}
		if t.Failed() {
			t.Fatalf("after step %d", step)
		}
	}
	m.check(t, d)
}
