package replica

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/api"
	"vmreplica/internal/build"
	"vmreplica/internal/daemon"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// Settings are what an operator changes while the agent runs.
type Settings struct {
	// BandwidthLimit is the bytes a second that all transfers of the agent may send; 0 means no limit.
	BandwidthLimit int64
	// MaxTransfers is how many VMs transfer at a time, 1 to 64.
	MaxTransfers int32
}

var storedSettings = state.Setting[Settings]{Name: "agent", Default: Settings{MaxTransfers: 64}}

func (s Settings) check() error {
	switch {
	case s.BandwidthLimit < 0:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a bandwidth limit is 0 or more bytes a second")
	case s.MaxTransfers < 1 || s.MaxTransfers > 64:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "1 to 64 VMs transfer at a time, not %d",
			s.MaxTransfers)
	}
	return nil
}

// agentService shows the agent and changes its settings.
type agentService struct {
	vmreplicav1.UnimplementedAgentServiceServer
	store       state.Store
	requests    *requests
	credentials *transport.Credentials
	started     time.Time
}

// loadSettings are the stored ones.
func loadSettings(store state.Store) (settings Settings, err error) {
	err = store.View(func(tx state.Tx) error {
		settings, err = storedSettings.Get(tx)
		return err
	})
	return settings, err
}

func (s *agentService) show(settings Settings) *vmreplicav1.Agent {
	return &vmreplicav1.Agent{
		Identity: s.credentials.Identity().String(), Role: vmreplicav1.Role_ROLE_REPLICA, Version: build.Read().Version,
		StartTime: timestamppb.New(s.started), CertificateExpireTime: api.TimeToProto(s.credentials.NotAfter()),
		PlatformLimits: daemon.PlatformLimits(),
		Settings: &vmreplicav1.AgentSettings{
			BandwidthLimitBytesPerSecond: settings.BandwidthLimit, MaxTransfers: settings.MaxTransfers,
		},
	}
}

// GetAgent shows the agent.
func (s *agentService) GetAgent(context.Context, *vmreplicav1.GetAgentRequest) (*vmreplicav1.Agent, error) {
	settings, err := loadSettings(s.store)
	if err != nil {
		return nil, err
	}
	return s.show(settings), nil
}

// UpdateAgent changes settings.
func (s *agentService) UpdateAgent(ctx context.Context, r *vmreplicav1.UpdateAgentRequest) (*vmreplicav1.Agent, error) {
	const bandwidth, transfers = "bandwidth_limit_bytes_per_second", "max_transfers"
	paths := r.GetUpdateMask().GetPaths()
	if err := checkMask(paths, bandwidth, transfers); err != nil {
		return nil, err
	}
	return remember(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.Agent),
		func(tx state.Tx) (*vmreplicav1.Agent, error) {
			settings, err := storedSettings.Get(tx)
			if err != nil {
				return nil, err
			}
			for _, path := range paths {
				if path == bandwidth {
					settings.BandwidthLimit = r.GetSettings().GetBandwidthLimitBytesPerSecond()
				} else {
					settings.MaxTransfers = r.GetSettings().GetMaxTransfers()
				}
			}
			if err := settings.check(); err != nil {
				return nil, err
			}
			return s.show(settings), storedSettings.Set(tx, settings)
		})
}

// TestConnection is the primary's: it tries the way to a replica.
func (s *agentService) TestConnection(context.Context, *vmreplicav1.TestConnectionRequest,
) (*vmreplicav1.TestConnectionResponse, error) {
	return nil, wrongRole("testing a connection")
}
