// Package pipeline does work on several goroutines and hands out the results in the order of their inputs.
//
// Invariants. Never more than workers inputs are between in and the returned channel, waiting results included, so
// what inputs and results hold is bounded by workers. The returned channel is closed when in is closed and everything
// was handed out, or when ctx ends; by then no goroutine of the pipeline runs.
package pipeline

import (
	"context"
	"sync"
)

// Ordered runs work on each input, at most workers at a time. The caller drains the channel or ends ctx.
func Ordered[In, Out any](ctx context.Context, workers int, in <-chan In, work func(In) Out) <-chan Out {
	workers = max(workers, 1)
	out := make(chan Out)
	pending := make(chan chan Out, workers)
	slots := make(chan struct{}, workers)
	go func() {
		defer close(pending)
		var running sync.WaitGroup
		defer running.Wait()
		for {
			input, ok := receive(ctx, in)
			if !ok || !send(ctx, slots, struct{}{}) {
				return
			}
			result := make(chan Out, 1)
			running.Go(func() { result <- work(input) })
			if !send(ctx, pending, result) {
				return
			}
		}
	}()
	go func() {
		defer close(out)
		for result := range pending {
			if !send(ctx, out, <-result) {
				for result := range pending {
					<-result
				}
				return
			}
			<-slots
		}
	}()
	return out
}

func receive[T any](ctx context.Context, from <-chan T) (T, bool) {
	select {
	case value, ok := <-from:
		return value, ok
	case <-ctx.Done():
		var none T
		return none, false
	}
}

func send[T any](ctx context.Context, to chan<- T, value T) bool {
	select {
	case to <- value:
		return true
	case <-ctx.Done():
		return false
	}
}
