package schedule

import (
	"time"

	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

const (
	day           = 24 * time.Hour
	minutesInADay = int(day / time.Minute)
)

// Open says whether a required resync may start by itself at now. Where the clocks go back over a window it is open
// twice; where they go forward over one entirely it is not open that day.
//
// It fails, as do NextOpen and Ends, where the time zone is not known here.
func Open(w replication.AutoResync, now time.Time) (bool, error) {
	switch w.Mode {
	case replication.AutoResyncAlways:
		return true, nil
	case replication.AutoResyncWindow:
	default:
		return false, nil
	}
	now, err := inZone(w, now)
	return err == nil && shows(w.Window, now), err
}

// NextOpen is the first instant, now or later, at which a required resync may start by itself; the zero time means
// never.
func NextOpen(w replication.AutoResync, now time.Time) (time.Time, error) {
	isOpen, err := Open(w, now)
	if err != nil || isOpen {
		return now, err
	}
	if w.Mode != replication.AutoResyncWindow {
		return time.Time{}, nil
	}
	local, err := inZone(w, now)
	if err != nil {
		return time.Time{}, err
	}
	return turn(w.Window, local, w.Window.Start, true), nil
}

// Ends is when what is open at now closes: now where nothing is open, the zero time where it never closes.
func Ends(w replication.AutoResync, now time.Time) (time.Time, error) {
	isOpen, err := Open(w, now)
	if err != nil || !isOpen {
		return now, err
	}
	if w.Mode == replication.AutoResyncAlways || w.Window.Start == w.Window.End {
		return time.Time{}, nil
	}
	local, err := inZone(w, now)
	if err != nil {
		return time.Time{}, err
	}
	return turn(w.Window, local, w.Window.End, false), nil
}

// inZone is now as a clock on the wall in the window's time zone shows it; minutes that no day has are refused.
func inZone(w replication.AutoResync, now time.Time) (time.Time, error) {
	for _, minute := range []int{w.Window.Start, w.Window.End} {
		if minute < 0 || minute >= minutesInADay {
			return time.Time{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"the window from minute %d to %d is not one of a day", w.Window.Start, w.Window.End)
		}
	}
	zone, err := w.Location()
	if err != nil {
		return time.Time{}, err
	}
	return now.Round(0).In(zone), nil
}

// shows says whether the clock that shows local shows a time within w.
func shows(w replication.Window, local time.Time) bool {
	minute := local.Hour()*60 + local.Minute()
	if w.Start < w.End {
		return w.Start <= minute && minute < w.End
	}
	return minute >= w.Start || minute < w.End
}

// turn is the first instant after local at which w is open, or closed when open is false, local being the other way
// around: when the clock comes to show minute, or when it is set to where w is as wanted.
//
// It ends: no window is as it is at local for as long as the longest time between two settings of a zone's clock.
func turn(w replication.Window, local time.Time, minute int, open bool) time.Time {
	for {
		next := local.Add(until(local, minute))
		_, set := local.ZoneBounds()
		if set.IsZero() || next.Before(set) {
			return next
		}
		local = set
		if shows(w, local) == open {
			return local
		}
	}
}

// until is how long a clock that shows local, and that nobody sets, takes to show minute; above 0, at most a day.
func until(local time.Time, minute int) time.Duration {
	shown := time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute +
		time.Duration(local.Second())*time.Second + time.Duration(local.Nanosecond())
	wait := time.Duration(minute)*time.Minute - shown
	if wait <= 0 {
		wait += day
	}
	return wait
}
