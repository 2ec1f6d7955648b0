// Package schedule decides when things are done. It is pure: the present time and chance come from outside.
//
// Vocabulary. A start time is when an operator wants a resync to begin. A Retry is the waiting after failures:
// each wait is anywhere up to a ceiling that doubles from one second to one minute, so that many relationships
// whose replica was away do not return at one instant. A cycle is one sending of changes; it is due at a boundary of
// its machine's grid: instants of the clock on the wall that lie an interval apart. A window is the part of every day
// in which a required resync starts by itself.
//
// Invariants: the grid depends on the machine and the interval alone, so that cycles neither drift nor all begin at
// one instant; the next cycle is less than two intervals away whatever the clock did; the window is open exactly when
// a clock on the wall in its time zone shows a time within it.
//
// Nothing is kept: a start time lies in the relationship's record, and after a restart a Retry begins anew.
package schedule

import (
	"time"

	"vmreplica/internal/failure"
	"vmreplica/transport"
)

// MaxAhead is how far ahead a resync may be scheduled.
const MaxAhead = 7 * 24 * time.Hour

// The waits after failures.
const (
	retryBase = time.Second
	retryMost = time.Minute
)

// StartTime is when a resync asked for at now begins: asked, or now when asked is zero or already past. More than
// MaxAhead is refused.
func StartTime(now, asked time.Time) (time.Time, error) {
	if asked.IsZero() || asked.Before(now) {
		return now, nil
	}
	if asked.Sub(now) > MaxAhead {
		return time.Time{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the start time %s is more than 7 days ahead", asked.Format(time.RFC3339)).
			Try("Give a time until %s.", now.Add(MaxAhead).Format(time.RFC3339))
	}
	return asked, nil
}

// Retry counts the failures in a row and says when to try again. It is for one goroutine.
type Retry struct {
	backoff *transport.Backoff
	first   time.Time
}

// NewRetry makes a Retry without failures; random is in [0, 1), nil means math/rand.
func NewRetry(random func() float64) *Retry {
	return &Retry{backoff: transport.NewBackoff(retryBase, retryMost, random)}
}

// Failed counts a failure at now and answers when to try again.
func (r *Retry) Failed(now time.Time) time.Time {
	if r.backoff.Attempts() == 0 {
		r.first = now
	}
	return now.Add(r.backoff.Next())
}

// Failures is how many attempts in a row failed, and when the first did.
func (r *Retry) Failures() (count int, since time.Time) {
	if r.backoff.Attempts() == 0 {
		return 0, time.Time{}
	}
	return r.backoff.Attempts(), r.first
}

// Succeeded begins anew and answers how many attempts had failed.
func (r *Retry) Succeeded() int {
	count := r.backoff.Attempts()
	r.backoff.Reset()
	return count
}
