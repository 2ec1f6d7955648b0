package schedule_test

import (
	"testing"
	"time"

	"vmreplica/agent-primary/schedule"
	"vmreplica/internal/failure"
)

var now = time.Date(2026, 3, 28, 22, 30, 0, 0, time.UTC)

func TestStartTime(t *testing.T) {
	cases := map[string]struct {
		asked, want time.Time
		refused     bool
	}{
		"not asked":                 {time.Time{}, now, false},
		"in the past":               {now.Add(-time.Hour), now, false},
		"in an hour":                {now.Add(time.Hour), now.Add(time.Hour), false},
		"in exactly seven days":     {now.Add(schedule.MaxAhead), now.Add(schedule.MaxAhead), false},
		"a second after seven days": {now.Add(schedule.MaxAhead + time.Second), time.Time{}, true},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := schedule.StartTime(now, test.asked)
			if !got.Equal(test.want) || (err != nil) != test.refused {
				t.Fatalf("got %v, %v", got, err)
			}
			if test.refused && (failure.Find(err).Class != failure.Invalid || failure.Find(err).Remedy == "") {
				t.Fatalf("refused with %v", err)
			}
		})
	}
}

func TestRetryDoublesToAMinuteAndBeginsAnew(t *testing.T) {
	retry := schedule.NewRetry(func() float64 { return 0.999999999 })
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60}
	for i, seconds := range want {
		wait := retry.Failed(now).Sub(now).Round(time.Millisecond)
		if wait != seconds*time.Second {
			t.Fatalf("wait %d is %v, want %ds", i+1, wait, seconds)
		}
	}
	if count, since := retry.Failures(); count != len(want) || !since.Equal(now) {
		t.Fatalf("%d failures since %v", count, since)
	}
	if retry.Succeeded() != len(want) || retry.Succeeded() != 0 {
		t.Fatal("a success does not tell how many attempts had failed, once")
	}
	if wait := retry.Failed(now).Sub(now); wait > time.Second {
		t.Fatalf("after a success the first wait is %v", wait)
	}
}

func TestRetryIsSpread(t *testing.T) {
	for _, chance := range []float64{0, 0.25, 0.75} {
		retry := schedule.NewRetry(func() float64 { return chance })
		for range 20 {
			retry.Failed(now)
		}
		wait := retry.Failed(now).Sub(now)
		want := time.Duration(chance * float64(time.Minute))
		if wait < want || wait > want+time.Millisecond {
			t.Fatalf("chance %v waits %v", chance, wait)
		}
	}
}
