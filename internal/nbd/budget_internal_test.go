package nbd

import (
	"context"
	"testing"
	"testing/synctest"
)

// asker is a connection that asks for memory; granted receives what it gets.
type asker struct {
	share
	granted chan grant
}

// want asks in the background and waits until it was granted or stands in the queue.
func (a *asker) want(t *testing.T, ctx context.Context, b *budget, n int64) {
	t.Helper()
	go func() {
		if g, err := b.acquire(ctx, &a.share, n); err == nil {
			a.granted <- g
		}
	}()
	synctest.Wait()
}

// has checks that a grant came, or that none did.
func (a *asker) has(t *testing.T, want bool) grant {
	t.Helper()
	synctest.Wait()
	select {
	case g := <-a.granted:
		if !want {
			t.Fatalf("granted %+v", g)
		}
		return g
	default:
		if want {
			t.Fatal("not granted")
		}
		return grant{}
	}
}

func inBudget(t *testing.T, size int64, test func(t *testing.T, b *budget, askers []*asker)) {
	synctest.Test(t, func(t *testing.T) {
		askers := make([]*asker, 8)
		for i := range askers {
			askers[i] = &asker{granted: make(chan grant, 10)}
		}
		b := newBudget(size)
		test(t, b, askers)
		if b.free != size || b.waiters.Len() != 0 {
			t.Errorf("%d bytes of %d are free, %d wait", b.free, size, b.waiters.Len())
		}
		for i, a := range askers {
			if a.share != (share{}) {
				t.Errorf("connection %d still holds %+v", i, a.share)
			}
		}
	})
}

func TestARequestAsLargeAsTheBudgetOrLargerRunsAlone(t *testing.T) {
	for _, n := range []int64{16 << 20, 32 << 20} {
		inBudget(t, 16<<20, func(t *testing.T, b *budget, a []*asker) {
			a[0].want(t, t.Context(), b, 1<<20)
			small := a[0].has(t, true)
			a[1].want(t, t.Context(), b, n)
			a[1].has(t, false)
			b.release(&a[0].share, small)
			large := a[1].has(t, true)
			a[2].want(t, t.Context(), b, 1<<20)
			a[2].has(t, false)
			b.release(&a[1].share, large)
			b.release(&a[2].share, a[2].has(t, true))
		})
	}
}

func TestALargeRequestIsNotPassedByLaterOnes(t *testing.T) {
	inBudget(t, 16<<20, func(t *testing.T, b *budget, a []*asker) {
		a[0].want(t, t.Context(), b, 1<<20)
		first := a[0].has(t, true)
		a[1].want(t, t.Context(), b, 16<<20)
		a[2].want(t, t.Context(), b, 1<<20)
		a[2].has(t, false)
		b.release(&a[0].share, first)
		large := a[1].has(t, true)
		a[2].has(t, false)
		b.release(&a[1].share, large)
		b.release(&a[2].share, a[2].has(t, true))
	})
}

func TestAConnectionAtItsOwnLimitDoesNotHoldUpOthers(t *testing.T) {
	inBudget(t, 16<<20, func(t *testing.T, b *budget, a []*asker) {
		a[0].want(t, t.Context(), b, 4<<20)
		own := a[0].has(t, true)
		a[0].want(t, t.Context(), b, 1<<20)
		a[0].has(t, false)
		if b.contended(&a[1].share) {
			t.Error("who waits for its own memory is taken for one that others hold up")
		}
		a[1].want(t, t.Context(), b, 4<<20)
		b.release(&a[1].share, a[1].has(t, true))
		b.release(&a[0].share, own)
		b.release(&a[0].share, a[0].has(t, true))
	})
}

func TestASmallRequestOfEachConnectionIsBesideTheBudget(t *testing.T) {
	inBudget(t, 1<<20, func(t *testing.T, b *budget, a []*asker) {
		a[0].want(t, t.Context(), b, 1<<20)
		hog := a[0].has(t, true)
		if b.contended(&a[0].share) {
			t.Error("nobody waits")
		}
		for _, other := range a[1:3] {
			other.want(t, t.Context(), b, asideBytes)
			aside := other.has(t, true)
			other.want(t, t.Context(), b, 4096)
			other.has(t, false)
			if !b.contended(&a[0].share) {
				t.Error("somebody waits")
			}
			b.release(&other.share, aside)
			b.release(&other.share, other.has(t, true))
		}
		a[3].want(t, t.Context(), b, asideBytes+1)
		a[3].has(t, false)
		b.release(&a[0].share, hog)
		b.release(&a[3].share, a[3].has(t, true))
	})
}

func TestWhoLeavesTheQueueLetsOthersThrough(t *testing.T) {
	inBudget(t, 16<<20, func(t *testing.T, b *budget, a []*asker) {
		a[0].want(t, t.Context(), b, 4<<20)
		held := a[0].has(t, true)
		ctx, cancel := context.WithCancel(t.Context())
		a[1].want(t, ctx, b, 16<<20)
		a[2].want(t, t.Context(), b, 1<<20)
		a[2].has(t, false)
		cancel()
		a[1].has(t, false)
		b.release(&a[2].share, a[2].has(t, true))
		b.release(&a[0].share, held)
	})
}
