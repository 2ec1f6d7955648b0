package relationship_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"vmreplica/agent-primary/relationship"
)

func TestSlotsAreGivenInOrderAndNeverLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := relationship.NewSlots(1)
		first, err := slots.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := slots.Acquire(impatient)
			gone <- err
		}()
		synctest.Wait()
		order := make(chan int, 2)
		for i := range 2 {
			go func() {
				release, err := slots.Acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				order <- i
				release()
			}()
			synctest.Wait()
		}
		giveUp()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Fatalf("giving up answers %v", err)
		}
		if len(order) != 0 {
			t.Fatal("more than the limit have a slot")
		}
		first()
		if a, b := <-order, <-order; a != 0 || b != 1 {
			t.Fatalf("the order was %d, %d", a, b)
		}
	})
}

func TestARaisedLimitLetsThoseInThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := relationship.NewSlots(0) // at least one
		releases := make(chan func(), 3)
		for range 3 {
			go func() {
				release, err := slots.Acquire(t.Context())
				if err != nil {
					t.Error(err)
				}
				releases <- release
			}()
		}
		synctest.Wait()
		if len(releases) != 1 {
			t.Fatalf("%d have a slot, want 1", len(releases))
		}
		slots.SetLimit(3)
		synctest.Wait()
		if len(releases) != 3 {
			t.Fatalf("%d have a slot, want 3", len(releases))
		}
		for range 3 {
			(<-releases)()
		}
	})
}

func TestASlotThatIsGivenToNobodyComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := relationship.NewSlots(1)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 { // a slot and the end of ctx are there at once: either may win
			if release, err := slots.Acquire(gone); err == nil {
				release()
			}
		}
		release, err := slots.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}
