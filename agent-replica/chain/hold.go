package chain

import (
	"context"
	"slices"
	"sync"

	"vmreplica/internal/failure"
)

// Purpose is one kind of work on a VM, in words that tell another caller what is going on.
type Purpose string

// The purposes of a hold.
const (
	ToTransfer Purpose = "a transfer is running"
	ToMerge    Purpose = "its layers are being merged"
	ToSeal     Purpose = "a recovery point is being made"
	ToRemove   Purpose = "its replica is being removed"
)

// excludes says whether two purposes cannot be held together. A transfer reads the view and writes what is its
// own, so a merge below may go on beside it; everything else excludes.
func (p Purpose) excludes(other Purpose) bool {
	return p == other || p == ToRemove || other == ToRemove
}

// holds are the purposes that are held of one VM.
type holds struct {
	mu   sync.Mutex
	held []Purpose
	// freed is closed and replaced at each release.
	freed chan struct{}
}

// take takes a hold, or answers what is in its way and a channel that is closed when that may have changed.
func (h *holds) take(purpose Purpose) (obstacle Purpose, freed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.freed == nil {
		h.freed = make(chan struct{})
	}
	for _, other := range h.held {
		if purpose.excludes(other) {
			return other, h.freed
		}
	}
	h.held = append(h.held, purpose)
	return "", nil
}

func (h *holds) release(purpose Purpose) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, held := range h.held {
		if held == purpose {
			h.held = append(h.held[:i], h.held[i+1:]...)
			break
		}
	}
	close(h.freed)
	h.freed = make(chan struct{})
}

// Hold takes the right to do one kind of work on the VM, until the returned function is called. WRONG_STATE, with
// what is going on, when that excludes it.
func (v *VM) Hold(purpose Purpose) (release func(), err error) {
	if obstacle, _ := v.holds.take(purpose); obstacle != "" {
		return nil, failure.New(failure.Conflict, failure.ReasonWrongState, "%s", obstacle).On(v.name, "")
	}
	return sync.OnceFunc(func() { v.holds.release(purpose) }), nil
}

// AwaitHold is Hold that waits until nothing excludes it or ctx ends.
func (v *VM) AwaitHold(ctx context.Context, purpose Purpose) (release func(), err error) {
	for {
		obstacle, freed := v.holds.take(purpose)
		if obstacle == "" {
			return sync.OnceFunc(func() { v.holds.release(purpose) }), nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, failure.New(failure.Conflict, failure.ReasonWrongState, "%s: %w", obstacle, context.Cause(ctx)).
				On(v.name, "")
		}
	}
}

// Doing says what is going on with the VM at this moment.
func (v *VM) Doing() []Purpose {
	v.holds.mu.Lock()
	defer v.holds.mu.Unlock()
	return slices.Clone(v.holds.held)
}
