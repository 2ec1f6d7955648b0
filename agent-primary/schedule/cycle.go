package schedule

import (
	"hash/fnv"
	"time"
)

// Boundary is the last boundary at or before now of the grid of id, a machine's: the cycle that begins at now was due
// then. Different ids have different grids.
func Boundary(id string, now time.Time, interval time.Duration) time.Time {
	if interval <= 0 {
		return now.Round(0)
	}
	digest := fnv.New64a()
	_, _ = digest.Write([]byte(id))
	phase := time.Duration(digest.Sum64() % uint64(interval))
	return now.Round(0).Add(-phase).Truncate(interval).Add(phase)
}

// NextCycle is when the next cycle is due, asked at now, after one that was due at last: the first boundary at or after
// now that is not last itself. Boundaries that a long cycle or a suspension passed over are not made up for. What it
// answers is kept by the caller until it has come: a later now asks for a later boundary. Without a last it is now.
//
// It goes by the clock on the wall, so that time asleep counts. Where that was set back, last lies after now, and the
// answer is still less than two intervals away.
func NextCycle(last, now time.Time, interval time.Duration) time.Time {
	last, now = last.Round(0), now.Round(0)
	if last.IsZero() || interval <= 0 {
		return now
	}
	// Truncate rounds to multiples since the zero time, so the grid is moved there and back.
	phase := last.Sub(last.Truncate(interval))
	next := now.Add(-phase).Truncate(interval).Add(phase)
	if next.Before(now) {
		next = next.Add(interval)
	}
	if next.Equal(last) {
		next = next.Add(interval)
	}
	return next
}

// Missed is how many cycles were left out because one that was due at began had not ended: the boundaries after began
// and before ended. One that ends at the next boundary missed nothing. It is 0 where the clock was set back.
func Missed(began, ended time.Time, interval time.Duration) int {
	began, ended = began.Round(0), ended.Round(0)
	if interval <= 0 || !ended.After(began) {
		return 0
	}
	return int((ended.Sub(began) - 1) / interval)
}
