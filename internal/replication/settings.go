package replication

import (
	"fmt"
	"time"

	"vmreplica/internal/failure"
)

// How often the changes of a tracked machine are sent.
const (
	DefaultInterval = 5 * time.Minute
	MinInterval     = 5 * time.Second
	MaxInterval     = 24 * time.Hour
)

// MaxRecoveryPoints is how many hourly points a replica keeps at most.
const MaxRecoveryPoints = 24

// DefaultHRLLimitPercent is Hyper-V's: at half of the VM's total disk size a resync is cheaper than what accumulated.
const DefaultHRLLimitPercent = 50

// CheckInterval refuses an interval outside MinInterval to MaxInterval.
func CheckInterval(interval time.Duration) error {
	if interval >= MinInterval && interval <= MaxInterval {
		return nil
	}
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the interval %s is not between %s and %s", interval,
		MinInterval, MaxInterval).Try("Hyper-V's are 30s, 5m and 15m.")
}

// CheckRecoveryPoints refuses a number outside 0 to MaxRecoveryPoints.
func CheckRecoveryPoints(points int) error {
	if points >= 0 && points <= MaxRecoveryPoints {
		return nil
	}
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%d recovery points are not between 0 and %d", points,
		MaxRecoveryPoints)
}

// CheckHRLLimit refuses a percentage outside 0 to 100; 0 means that there is no limit.
func CheckHRLLimit(percent int) error {
	if percent >= 0 && percent <= 100 {
		return nil
	}
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "an HRL limit of %d percent is not between 0 and 100", percent).
		Try("0 means that there is no limit.")
}

// AutoResyncMode says when a required resync starts by itself.
type AutoResyncMode uint8

// The modes. A record of before there were any has AutoResyncOff.
const (
	AutoResyncOff AutoResyncMode = iota
	AutoResyncAlways
	AutoResyncWindow
)

var autoResyncNames = [...]string{"off", "always", "window"}

func (m AutoResyncMode) String() string {
	if int(m) < len(autoResyncNames) {
		return autoResyncNames[m]
	}
	return "unknown"
}

// AutoResync is when a required resync starts by itself.
type AutoResync struct {
	Mode   AutoResyncMode
	Window Window
	// TimeZone is the window's, by its IANA name; empty for the host's.
	TimeZone string
	// PauseAtEnd lets a running resync rest while the window is closed.
	PauseAtEnd bool
}

// Location is the window's time zone.
func (a AutoResync) Location() (*time.Location, error) {
	if a.TimeZone == "" {
		return time.Local, nil
	}
	location, err := time.LoadLocation(a.TimeZone)
	if err != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the time zone %.80q is not known here", a.TimeZone).
			Try("Give its IANA name, as in Europe/Berlin, or leave it away for the agent's own.")
	}
	return location, nil
}

// Window is a time of every day, in minutes after midnight: from Start to before End, over midnight where End is not
// later. Equal ones are the whole day.
type Window struct{ Start, End int }

// DefaultWindow is Hyper-V's: 18:30 to 06:00.
var DefaultWindow = Window{Start: 18*60 + 30, End: 6 * 60}

// ParseWindow reads HH:MM-HH:MM, 00:00 to 23:59 each.
func ParseWindow(text string) (Window, error) {
	var startHour, startMinute, endHour, endMinute int
	n, err := fmt.Sscanf(text, "%d:%d-%d:%d", &startHour, &startMinute, &endHour, &endMinute)
	w := Window{Start: startHour*60 + startMinute, End: endHour*60 + endMinute}
	if err != nil || n != 4 || w.String() != text || startHour > 23 || endHour > 23 || startMinute > 59 || endMinute > 59 {
		return Window{}, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%.40q is not a window of the day", text).
			Try("Write it as HH:MM-HH:MM: 18:30-06:00.")
	}
	return w, nil
}

// String is HH:MM-HH:MM.
func (w Window) String() string {
	return fmt.Sprintf("%02d:%02d-%02d:%02d", w.Start/60, w.Start%60, w.End/60, w.End%60)
}
