package primary

import (
	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	"vmreplica/transport"
)

// settings are what an operator changes while the agent runs.
type settings struct {
	// BandwidthLimit is bytes a second that all transfers may send; 0 means no limit.
	BandwidthLimit int64
	// MaxTransfers is how many VMs transfer at a time.
	MaxTransfers int
}

var settingsRecord = state.Setting[settings]{Name: "primary", Default: settings{MaxTransfers: 3}}

// mostTransfers bounds MaxTransfers.
const mostTransfers = 64

func (s settings) check() error {
	switch {
	case s.BandwidthLimit < 0:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a bandwidth of %d bytes a second cannot be", s.BandwidthLimit).
			Try("Give 0 for no limit.")
	case s.MaxTransfers < 1 || s.MaxTransfers > mostTransfers:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%d transfers at a time cannot be", s.MaxTransfers).
			Try("Give 1 to %d.", mostTransfers)
	}
	return nil
}

// use makes the settings take effect, for what runs as well.
func (s settings) use(pacer *transport.Pacer, slots *relationship.Slots) {
	pacer.SetLimit(s.BandwidthLimit)
	slots.SetLimit(s.MaxTransfers)
}
