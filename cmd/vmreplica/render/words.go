package render

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/event"
)

// none stands where there is nothing to say.
const none = "-"

// Word is an enum's value as people read it: REPLICATION_STATE_ERROR is "Error". Unspecified is "-", and a number
// that this version does not know shows as "Unknown(12)".
func Word(value protoreflect.Enum) string {
	descriptor := value.Descriptor()
	if value.Number() == 0 {
		return none
	}
	known := descriptor.Values().ByNumber(value.Number())
	if known == nil {
		return fmt.Sprintf("Unknown(%d)", value.Number())
	}
	full := strings.TrimPrefix(string(known.Name()), prefix(string(descriptor.Name())))
	var word strings.Builder
	for part := range strings.SplitSeq(full, "_") {
		word.WriteString(part[:1] + strings.ToLower(part[1:]))
	}
	return word.String()
}

// prefix is what every value of an enum begins with: REPLICATION_STATE_ for ReplicationState.
func prefix(enum string) string {
	var upper strings.Builder
	for i, r := range enum {
		if unicode.IsUpper(r) && i > 0 {
			upper.WriteByte('_')
		}
		upper.WriteRune(unicode.ToUpper(r))
	}
	return upper.String() + "_"
}

// Size is bytes in IEC units: "512 B", "4.0 KiB". Less than none is unknown: "-".
func Size(bytes int64) string {
	if bytes < 0 {
		return none
	}
	return event.Size(bytes)
}

// Rate is bytes a second.
func Rate(bytesPerSecond int64) string { return Size(bytesPerSecond) + "/s" }

// Span is a duration to the second, below ten seconds to the tenth, below one to the millisecond: "1h2m3s", "4.5s".
func Span(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func span(d *durationpb.Duration) string {
	if d == nil {
		return none
	}
	return Span(d.AsDuration())
}

// Moment is a time, absolute with its zone, in the zone of now: "2026-11-22 22:30:00 +01:00".
func Moment(t, now time.Time) string {
	return t.In(now.Location()).Format("2006-01-02 15:04:05 -07:00")
}

// Distance is how far t is from now: "42s ago", "in 3h", "now".
func Distance(t, now time.Time) string {
	switch d := now.Sub(t).Round(time.Second); {
	case d > 0:
		return coarse(d) + " ago"
	case d < 0:
		return "in " + coarse(-d)
	default:
		return "now"
	}
}

// coarse is a duration in its largest unit.
func coarse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}

// distance is Distance of a time that may be unset.
func distance(t *timestamppb.Timestamp, now time.Time, unset string) string {
	if t == nil {
		return unset
	}
	return Distance(t.AsTime(), now)
}

// moment is both, for pages.
func moment(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "never"
	}
	return Moment(t.AsTime(), now) + " (" + Distance(t.AsTime(), now) + ")"
}

// short is the beginning of an id or a root, for tables.
func short(digits string) string {
	if digits == "" {
		return none
	}
	return digits[:min(12, len(digits))]
}

// percent is how much of a whole is done, in whole percents and never 100 before the end.
func percent(done, whole int64) int {
	if whole <= 0 || done >= whole {
		return 100
	}
	return int(float64(max(done, 0)) / float64(whole) * 100)
}

// plural is "1 disk", "2 disks".
func plural[N int | int32 | int64 | uint32 | uint64](n N, thing string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Clean drops what would move a terminal's cursor or change its colour.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
