package transport_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vmreplica/transport"
)

// timed is how long an action takes by the bubble's clock.
func timed(action func()) time.Duration {
	begin := time.Now()
	action()
	return time.Since(begin)
}

func TestPacerKeepsToItsLimit(t *testing.T) {
	const mib = 1 << 20
	for limit, frames := range map[int64]int{100 << 10: 3, 10 * mib: 50, 1000 * mib: 5000} {
		synctest.Test(t, func(t *testing.T) {
			pacer := transport.NewPacer(limit)
			took := timed(func() {
				for range frames {
					if err := pacer.Wait(t.Context(), mib); err != nil {
						t.Fatal(err)
					}
				}
			})
			ideal := time.Duration(float64(frames) * mib / float64(limit) * float64(time.Second))
			// One burst, at most 4 MiB or a tenth of a second, may pass ahead of time.
			if took > ideal+time.Millisecond || took < ideal-time.Second {
				t.Errorf("%d frames at %d bytes/s took %s, ideal %s", frames, limit, took, ideal)
			}
		})
	}
}

func TestPacerIsSharedByAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pacer := transport.NewPacer(1 << 20)
		var group sync.WaitGroup
		took := timed(func() {
			for range 10 {
				group.Go(func() {
					if err := pacer.Wait(t.Context(), 1<<20); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
		})
		if took < 9*time.Second || took > 10*time.Second+time.Millisecond {
			t.Errorf("10 MiB of ten at 1 MiB/s took %s", took)
		}
	})
}

func TestPacerWithoutLimitDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pacer := transport.NewPacer(0)
		took := timed(func() {
			for range 1000 {
				if err := pacer.Wait(t.Context(), 1<<30); err != nil {
					t.Fatal(err)
				}
			}
		})
		if took != 0 || pacer.Limit() != 0 {
			t.Errorf("took %s, limit %d", took, pacer.Limit())
		}
	})
}

func TestPacerTakesANewLimitWhileSomebodyWaits(t *testing.T) {
	for _, c := range []struct {
		limit int64
		least time.Duration
		most  time.Duration
	}{{0, 0, 0}, {100 << 20, 50 * time.Millisecond, 100 * time.Millisecond}, {5 << 20, 1880 * time.Millisecond, 2 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			pacer := transport.NewPacer(1 << 10)
			ended := make(chan time.Time)
			go func() {
				if err := pacer.Wait(t.Context(), 10<<20); err != nil {
					t.Error(err)
				}
				ended <- time.Now()
			}()
			time.Sleep(time.Second)
			synctest.Wait()
			begin := time.Now()
			pacer.SetLimit(c.limit)
			if took := (<-ended).Sub(begin); took < c.least || took > c.most {
				t.Errorf("after the change to %d it took %s, want %s to %s", c.limit, took, c.least, c.most)
			}
			if pacer.Limit() != c.limit {
				t.Errorf("limit %d, want %d", pacer.Limit(), c.limit)
			}
		})
	}
}

func TestPacerEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("reason")
		ctx, cancel := context.WithCancelCause(t.Context())
		pacer := transport.NewPacer(1)
		ended := make(chan error, 1)
		go func() { ended <- pacer.Wait(ctx, 1<<20) }()
		synctest.Wait()
		cancel(reason)
		if err := <-ended; !errors.Is(err, reason) {
			t.Errorf("waiting ended with %v", err)
		}
		if err := transport.NewPacer(0).Wait(ctx, 1); !errors.Is(err, reason) {
			t.Errorf("without a limit: %v", err)
		}
	})
}

func TestWatchdogEndsWhatDoesNotMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, watchdog := transport.NewWatchdog(t.Context(), time.Minute)
		defer watchdog.Stop()
		begin := time.Now()
		for range 100 {
			time.Sleep(59 * time.Second)
			watchdog.Note(1)
		}
		if ctx.Err() != nil || watchdog.Moved() != 100 {
			t.Fatalf("ended while it moved: %v after %d bytes", context.Cause(ctx), watchdog.Moved())
		}
		watchdog.Note(0)
		watchdog.Note(-5)
		<-ctx.Done()
		if quiet := time.Since(begin) - 5900*time.Second; quiet != time.Minute {
			t.Errorf("ended after %s of quiet", quiet)
		}
		if cause := context.Cause(ctx); !errors.Is(cause, transport.ErrNoProgress) {
			t.Errorf("cause %v", cause)
		}
	})
}

func TestWatchdogDoesNotCountEmptyNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, watchdog := transport.NewWatchdog(t.Context(), time.Minute)
		defer watchdog.Stop()
		for range 3 {
			time.Sleep(25 * time.Second)
			watchdog.Note(0)
		}
		if !errors.Is(context.Cause(ctx), transport.ErrNoProgress) {
			t.Error("notes of nothing are taken for progress")
		}
	})
}

func TestAStoppedWatchdogIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, watchdog := transport.NewWatchdog(t.Context(), time.Minute)
		watchdog.Stop()
		watchdog.Stop()
		time.Sleep(time.Hour)
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			t.Errorf("cause %v", cause)
		}
	})
}

func TestBackoffDoublesToItsCeiling(t *testing.T) {
	chance := 0.999999
	backoff := transport.NewBackoff(time.Second, 10*time.Second, func() float64 { return chance })
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
		want *= time.Second
		if got := backoff.Next(); got > want || got < want-time.Millisecond {
			t.Errorf("wait %d: %s, ceiling %s", i, got, want)
		}
	}
	if backoff.Attempts() != 7 {
		t.Errorf("%d attempts", backoff.Attempts())
	}
	backoff.Reset()
	if got := backoff.Next(); got > time.Second || backoff.Attempts() != 1 {
		t.Errorf("after a reset: %s, %d attempts", got, backoff.Attempts())
	}
	chance = 0
	if got := backoff.Next(); got <= 0 {
		t.Errorf("a wait of %s", got)
	}
	for range 1000 {
		if got := transport.NewBackoff(time.Hour, 1<<62, nil); got.Next() > time.Hour {
			t.Error("above the ceiling")
		}
		if got := backoff.Next(); got <= 0 || got > 10*time.Second {
			t.Fatalf("attempt %d: %s", backoff.Attempts(), got)
		}
	}
}
