package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"vmreplica/agent-primary/schedule"
)

const interval = 5 * time.Minute

func TestNextCycle(t *testing.T) {
	cases := map[string]struct {
		now, want time.Duration // after the last cycle was due
	}{
		"ended at once":                {0, interval},
		"ended soon":                   {time.Second, interval},
		"ended at the next":            {interval, interval},
		"a little too long":            {interval + 1, 2 * interval},
		"after seven days":             {7*24*time.Hour + time.Second, 7*24*time.Hour + interval},
		"clock set back a moment":      {-time.Millisecond, interval},
		"clock set back to a boundary": {-interval, -interval},
		"clock set back an hour":       {-time.Hour + time.Second, -time.Hour + interval},
		"clock set back past a year":   {-9000*time.Hour - time.Second, -9000 * time.Hour},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			if got := schedule.NextCycle(now, now.Add(test.now), interval).Sub(now); got != test.want {
				t.Fatalf("the next cycle is %v after the last, want %v", got, test.want)
			}
		})
	}
	if got := schedule.NextCycle(time.Time{}, now, interval); !got.Equal(now) {
		t.Fatalf("the first cycle is at %v", got)
	}
}

// Cycles run for days with every kind of length, are suspended, and the clock is set: each is due on the grid of the
// first and is less than two intervals away.
func TestCyclesDoNotDrift(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, interval := range []time.Duration{5 * time.Second, 7 * time.Second, 5 * time.Minute, 24 * time.Hour} {
		first := now.Add(time.Duration(random.Int64N(int64(time.Hour))))
		due := first
		for range 2000 {
			clock := due.Add(time.Duration(random.Int64N(int64(interval) / 3))) // it waited for its turn
			clock = clock.Add(time.Duration(random.ExpFloat64() * float64(interval) / 2))
			if random.IntN(50) == 0 { // suspended, or the clock was set
				clock = clock.Add(time.Duration(random.Int64N(int64(40*interval))) - 20*interval)
			}
			next := schedule.NextCycle(due, clock, interval)
			if off := next.Sub(first) % interval; off != 0 {
				t.Fatalf("a cycle is %v off its grid of %v", off, interval)
			}
			if wait := next.Sub(clock); wait < 0 || wait >= 2*interval || next.Equal(due) {
				t.Fatalf("asked at %v after a cycle of %v, the next one of %v is %v away", clock, due, interval, wait)
			}
			due = next
		}
	}
}

func TestMissedAgreesWithNextCycle(t *testing.T) {
	for ended, want := range map[time.Duration]int{
		-time.Hour: 0, 0: 0, 1: 0, interval: 0, interval + 1: 1, 2 * interval: 1, 2*interval + 1: 2, 10 * interval: 9,
	} {
		got := schedule.Missed(now, now.Add(ended), interval)
		if got != want {
			t.Errorf("a cycle of %v missed %d, want %d", ended, got, want)
		}
		if ended < 0 {
			continue
		}
		next := schedule.NextCycle(now, now.Add(ended), interval)
		if passed := int(next.Sub(now)/interval) - 1; passed != got {
			t.Errorf("after %v the next cycle passed over %d boundaries, %d count as missed", ended, passed, got)
		}
	}
}

func TestBoundaryIsTheLastOneOfTheMachinesGrid(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	origin := schedule.Boundary("web01", now, interval)
	for range 1000 {
		at := now.Add(time.Duration(random.Int64N(int64(14*24*time.Hour))) - schedule.MaxAhead)
		boundary := schedule.Boundary("web01", at, interval)
		if since := at.Sub(boundary); since < 0 || since >= interval || boundary.Sub(origin)%interval != 0 {
			t.Fatalf("at %v the last boundary is %v", at, boundary)
		}
		if !schedule.Boundary("web01", boundary, interval).Equal(boundary) {
			t.Fatalf("%v is not its own boundary", boundary)
		}
		if next := schedule.NextCycle(boundary, at, interval); !next.Equal(boundary.Add(interval)) {
			t.Fatalf("after the boundary %v comes %v", boundary, next)
		}
	}
}

func TestMachinesDoNotBeginAtOneInstant(t *testing.T) {
	const machines, parts = 1000, 10
	var inPart [parts]int
	for i := range machines {
		boundary := schedule.Boundary(fmt.Sprintf("vm%d", i), now, interval)
		inPart[now.Sub(boundary)*parts/interval]++
	}
	for part, count := range inPart {
		if count < machines/parts/2 || count > machines/parts*2 {
			t.Errorf("%d of %d machines begin in part %d of %d", count, machines, part, parts)
		}
	}
}

// A time with a monotonic reading would be compared by it, and time asleep would not count.
func TestCyclesGoByTheClockOnTheWall(t *testing.T) {
	began := time.Now()
	for name, got := range map[string]time.Time{
		"NextCycle": schedule.NextCycle(began, began, interval),
		"the first": schedule.NextCycle(time.Time{}, began, interval),
		"Boundary":  schedule.Boundary("web01", began, interval),
	} {
		if got != got.Round(0) {
			t.Errorf("%s answers a time with a monotonic reading", name)
		}
	}
}
