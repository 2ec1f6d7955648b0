package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata"

	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

func windowed(t *testing.T, text, zone string) replication.AutoResync {
	t.Helper()
	window, err := replication.ParseWindow(text)
	if err != nil {
		t.Fatal(err)
	}
	return replication.AutoResync{Mode: replication.AutoResyncWindow, Window: window, TimeZone: zone}
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWindow(t *testing.T) {
	const never = "0001-01-01T00:00:00Z"
	cases := map[string]struct {
		window, zone, now string
		opens, ends       string // ends is when it closes, asked at the instant at which it opens
	}{
		"by night, before it":  {"18:30-06:00", "UTC", "2026-03-02T12:00:00Z", "2026-03-02T18:30:00Z", "2026-03-03T06:00:00Z"},
		"by night, within":     {"18:30-06:00", "UTC", "2026-03-02T23:59:59Z", "2026-03-02T23:59:59Z", "2026-03-03T06:00:00Z"},
		"by night, after 0:00": {"18:30-06:00", "UTC", "2026-03-03T00:00:00Z", "2026-03-03T00:00:00Z", "2026-03-03T06:00:00Z"},
		"at its end":           {"18:30-06:00", "UTC", "2026-03-03T06:00:00Z", "2026-03-03T18:30:00Z", "2026-03-04T06:00:00Z"},
		"by day, after it":     {"09:00-09:30", "UTC", "2026-02-28T09:30:00Z", "2026-03-01T09:00:00Z", "2026-03-01T09:30:00Z"},
		"until midnight":       {"22:00-00:00", "UTC", "2026-03-02T21:59:59Z", "2026-03-02T22:00:00Z", "2026-03-03T00:00:00Z"},
		"from midnight":        {"00:00-00:01", "UTC", "2026-12-31T00:01:00Z", "2027-01-01T00:00:00Z", "2027-01-01T00:01:00Z"},
		"the whole day":        {"07:00-07:00", "UTC", "2026-03-02T06:59:00Z", "2026-03-02T06:59:00Z", never},
		"a quarter off":        {"18:30-06:00", "Asia/Kathmandu", "2026-03-02T12:00:00Z", "2026-03-02T12:45:00Z", "2026-03-03T00:15:00Z"},

		// Berlin: at 02:00 on 29 March it is 03:00, at 03:00 on 25 October it is 02:00.
		"a night of 23 hours": {"18:30-06:00", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-28T17:30:00Z", "2026-03-29T04:00:00Z"},
		"a night of 25 hours": {"18:30-06:00", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-24T16:30:00Z", "2026-10-25T05:00:00Z"},
		"no start":            {"02:30-06:00", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T04:00:00Z"},
		"no end":              {"01:00-02:30", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"},
		"neither":             {"02:10-02:40", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-30T00:10:00Z", "2026-03-30T00:40:00Z"},
		"two starts, first":   {"02:30-06:00", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"},
		"two starts, second":  {"02:30-06:00", "Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T05:00:00Z"},
		"two ends, first":     {"01:00-02:30", "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"},
		"two ends, second":    {"01:00-02:30", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"},

		// Lord Howe sets its clock by half an hour, Cairo at midnight, Apia left out 30 December 2011.
		"half an hour":  {"02:15-02:20", "Australia/Lord_Howe", "2026-10-03T15:00:00Z", "2026-10-04T15:15:00Z", "2026-10-04T15:20:00Z"},
		"at midnight":   {"00:00-01:30", "Africa/Cairo", "2026-04-23T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-23T22:30:00Z"},
		"a missing day": {"09:00-10:00", "Pacific/Apia", "2011-12-29T20:00:00Z", "2011-12-30T19:00:00Z", "2011-12-30T20:00:00Z"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			w := windowed(t, test.window, test.zone)
			opens, err := schedule.NextOpen(w, instant(t, test.now))
			if err != nil || !opens.Equal(instant(t, test.opens)) {
				t.Errorf("opens at %v, %v, want %s", opens.UTC(), err, test.opens)
			}
			if ends, err := schedule.Ends(w, instant(t, test.opens)); err != nil || !ends.Equal(instant(t, test.ends)) {
				t.Errorf("ends at %v, %v, want %s", ends.UTC(), err, test.ends)
			}
		})
	}
}

// clockShows is an oracle that shares nothing with the package: what a clock shows is text, and text has an order.
func clockShows(w replication.AutoResync, zone *time.Location, at time.Time) bool {
	shown := at.In(zone).Format("15:04")
	start, end := w.Window.String()[:5], w.Window.String()[6:]
	if start < end {
		return start <= shown && shown < end
	}
	return shown >= start || shown < end
}

// firstMinute is the first instant, now or a full minute after it, at which the window is open or is not.
func firstMinute(w replication.AutoResync, zone *time.Location, now time.Time, open bool) time.Time {
	for at := now; ; at = at.Truncate(time.Minute).Add(time.Minute) {
		if clockShows(w, zone, at) == open {
			return at
		}
	}
}

// In zones with every kind of clock setting, around each setting of a year: what is answered is the first instant
// that a search by minutes finds, also seven days ahead.
func TestWindowIsWhatAClockShows(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{
		"UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Havana", "Africa/Cairo", "Africa/Casablanca",
		"Asia/Kathmandu", "Asia/Beirut", "Australia/Lord_Howe", "Pacific/Chatham", "Antarctica/Troll",
	} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		around := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 4 { // settings of the clock, where there are any
			for range 25 {
				checkAround(t, zone, around, random)
			}
			if _, set := around.In(zone).ZoneBounds(); !set.IsZero() {
				around = set
			}
		}
	}
}

func checkAround(t *testing.T, zone *time.Location, around time.Time, random *rand.Rand) {
	t.Helper()
	now := around.Add(time.Duration(random.Int64N(int64(48*time.Hour))) - 36*time.Hour)
	start, length := random.IntN(24*60), random.IntN(24*60)
	if random.IntN(3) == 0 {
		start, length = random.IntN(4*60), 1+random.IntN(90) // where clocks are set
	}
	w := windowed(t, replication.Window{Start: start, End: (start + length) % (24 * 60)}.String(), zone.String())
	for _, at := range []time.Time{now, now.Add(schedule.MaxAhead)} {
		what := fmt.Sprintf("%s in %s at %s", w.Window, zone, at.Format(time.RFC3339Nano))
		if isOpen, err := schedule.Open(w, at); err != nil || isOpen != clockShows(w, zone, at) {
			t.Fatalf("%s: open is %v, %v", what, isOpen, err)
		}
		opens, err := schedule.NextOpen(w, at)
		if want := firstMinute(w, zone, at, true); err != nil || !opens.Equal(want) {
			t.Fatalf("%s: opens at %v, %v, want %v", what, opens, err, want)
		}
		if length == 0 {
			continue
		}
		ends, err := schedule.Ends(w, opens)
		if want := firstMinute(w, zone, opens, false); err != nil || !ends.Equal(want) {
			t.Fatalf("%s: ends at %v, %v, want %v", what, ends, err, want)
		}
	}
}

func TestAlwaysAndOff(t *testing.T) {
	always := replication.AutoResync{Mode: replication.AutoResyncAlways}
	off := replication.AutoResync{Mode: replication.AutoResyncOff, Window: replication.DefaultWindow}
	for name, test := range map[string]struct {
		w           replication.AutoResync
		open        bool
		opens, ends time.Time
	}{
		"always": {always, true, now, time.Time{}},
		"off":    {off, false, time.Time{}, now},
	} {
		isOpen, err := schedule.Open(test.w, now)
		if err != nil || isOpen != test.open {
			t.Errorf("%s: open is %v, %v", name, isOpen, err)
		}
		if opens, err := schedule.NextOpen(test.w, now); err != nil || !opens.Equal(test.opens) {
			t.Errorf("%s: opens at %v, %v", name, opens, err)
		}
		if ends, err := schedule.Ends(test.w, now); err != nil || !ends.Equal(test.ends) {
			t.Errorf("%s: ends at %v, %v", name, ends, err)
		}
	}
}

func TestWindowsThatCannotBeRead(t *testing.T) {
	for name, w := range map[string]replication.AutoResync{
		"an unknown zone":  {Mode: replication.AutoResyncWindow, Window: replication.DefaultWindow, TimeZone: "Mars/Olympus"},
		"minutes past day": {Mode: replication.AutoResyncWindow, Window: replication.Window{Start: 24 * 60, End: 5}},
		"negative minutes": {Mode: replication.AutoResyncWindow, Window: replication.Window{Start: 3, End: -1}},
	} {
		_, open := schedule.Open(w, now)
		_, next := schedule.NextOpen(w, now)
		_, ends := schedule.Ends(w, now)
		for _, err := range []error{open, next, ends} {
			if err == nil || failure.Find(err).Class != failure.Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
