package command

import (
	"strconv"
	"strings"
	"time"
)

// parseWhen reads when something is to begin, as an operator at now says it: "22:30" is the next time that the
// clock in now's zone shows it, "+2h" or "+1d" is from now, anything else RFC 3339. Empty is the zero time.
func parseWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ahead, relative := strings.CutPrefix(text, "+"); relative {
		if d, ok := parseAhead(ahead); ok {
			return now.Add(d), nil
		}
	} else if clock, err := time.Parse("15:04", text); err == nil {
		return nextClock(clock, now), nil
	} else if at, err := time.Parse(time.RFC3339, text); err == nil {
		if at.Before(now) {
			return time.Time{}, misused("%s is past", text).Try("Leave --at away to begin now.")
		}
		return at, nil
	}
	return time.Time{}, misused("%q is no time to begin at", text).
		Try("Give 22:30, +2h, or RFC 3339 as in %s.", now.Add(time.Hour).Format(time.RFC3339))
}

// parseAhead reads a duration, or days.
func parseAhead(text string) (time.Duration, bool) {
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		n, err := strconv.ParseUint(days, 10, 8)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0
}

// nextClock is the next instant after now at which a clock in its zone shows that time of day.
func nextClock(clock, now time.Time) time.Time {
	at := func(daysAhead int) time.Time {
		return time.Date(now.Year(), now.Month(), now.Day()+daysAhead, clock.Hour(), clock.Minute(), 0, 0, now.Location())
	}
	if today := at(0); today.After(now) {
		return today
	}
	return at(1)
}
