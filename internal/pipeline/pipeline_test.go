package pipeline_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/internal/pipeline"
)

func TestOrderedKeepsOrderAndBound(t *testing.T) {
	const inputs, workers = 2000, 3
	in := make(chan int)
	go func() {
		defer close(in)
		for i := range inputs {
			in <- i
		}
	}()
	var running, most atomic.Int64
	work := func(i int) int {
		now := running.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Microsecond)
		running.Add(-1)
		return i
	}
	next := 0
	for got := range pipeline.Ordered(t.Context(), workers, in, work) {
		if got != next {
			t.Fatalf("result %d came where %d was due", got, next)
		}
		next++
	}
	if next != inputs {
		t.Fatalf("%d of %d results came", next, inputs)
	}
	if most.Load() > workers {
		t.Fatalf("%d inputs were worked on at a time, the bound is %d", most.Load(), workers)
	}
}

func TestOrderedEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in := make(chan int, 10)
		for i := range 10 {
			in <- i
		}
		out := pipeline.Ordered(ctx, 2, in, func(i int) int { return i })
		<-out
		cancel()
		for range out {
		}
		synctest.Wait() // fails the test when a goroutine of the pipeline stays
	})
}
