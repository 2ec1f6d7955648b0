package relationship

import (
	"time"

	"vmreplica/agent-primary/resync"
)

// meter watches one pass: its rate, smoothed over about ten seconds, and when anything of it last moved.
type meter struct {
	at       time.Time
	value    int64
	smoothed float64
	// moved is what the pass had moved at movedAt, when that last rose.
	moved   int64
	movedAt time.Time
}

const (
	// meterWeight is how much the last second counts.
	meterWeight = 0.2
	// stallAfter is how long nothing may move before it is said.
	stallAfter = 15 * time.Second
)

func (m *meter) sample(now time.Time, f resync.Figures) {
	value := f.ComparedBytes
	elapsed := now.Sub(m.at).Seconds()
	if !m.at.IsZero() && elapsed <= 0 {
		return
	}
	if !m.at.IsZero() && value >= m.value {
		present := float64(value-m.value) / elapsed
		if m.smoothed == 0 {
			m.smoothed = present
		}
		m.smoothed += meterWeight * (present - m.smoothed)
	}
	m.at, m.value = now, value
	if moved := value + f.DurableBytes + f.WireBytesSent + f.WireBytesReceived; m.movedAt.IsZero() || moved != m.moved {
		m.moved, m.movedAt = moved, now
	}
}

// rate is in bytes a second; none while the pass is stalled, because what it was says nothing of when it ends.
func (m *meter) rate() int64 {
	if !m.stalledSince().IsZero() {
		return 0
	}
	return int64(m.smoothed)
}

// stalledSince is since when nothing has moved, once that is longer than stallAfter; zero otherwise.
func (m *meter) stalledSince() time.Time {
	if m.movedAt.IsZero() || m.at.Sub(m.movedAt) <= stallAfter {
		return time.Time{}
	}
	return m.movedAt
}
