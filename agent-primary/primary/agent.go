package primary

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"vmreplica/agent-primary/peer"
	"vmreplica/internal/api"
	"vmreplica/internal/build"
	"vmreplica/internal/daemon"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// agentService serves the agent itself.
type agentService struct {
	vmreplicav1.UnimplementedAgentServiceServer
	agent   *agent
	callers callers
}

// GetAgent shows the agent.
func (s *agentService) GetAgent(context.Context, *vmreplicav1.GetAgentRequest) (*vmreplicav1.Agent, error) {
	var kept settings
	err := s.agent.store.View(func(tx state.Tx) (err error) {
		kept, err = settingsRecord.Get(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.shown(kept), nil
}

func (s *agentService) shown(kept settings) *vmreplicav1.Agent {
	return &vmreplicav1.Agent{
		Identity: s.agent.credentials.Identity().String(), Role: vmreplicav1.Role_ROLE_PRIMARY,
		Version: build.Read().Version, StartTime: api.TimeToProto(s.agent.began),
		Settings: &vmreplicav1.AgentSettings{
			BandwidthLimitBytesPerSecond: kept.BandwidthLimit, MaxTransfers: int32(kept.MaxTransfers),
		},
		CertificateExpireTime: api.TimeToProto(s.agent.credentials.NotAfter()),
		PlatformLimits:        daemon.PlatformLimits(),
	}
}

// UpdateAgent changes the settings that the mask names, durably and then at once.
func (s *agentService) UpdateAgent(ctx context.Context, r *vmreplicav1.UpdateAgentRequest) (*vmreplicav1.Agent, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	var kept settings
	err = s.agent.store.Update(func(tx state.Tx) (err error) {
		_, err = s.agent.requests.Do(tx, request, func() ([]byte, error) {
			present, err := settingsRecord.Get(tx)
			if err != nil {
				return nil, err
			}
			changed, err := change(present, r)
			if err != nil {
				return nil, err
			}
			return nil, settingsRecord.Set(tx, changed)
		})
		if err != nil {
			return err
		}
		kept, err = settingsRecord.Get(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	kept.use(s.agent.pacer, s.agent.slots)
	return s.shown(kept), nil
}

func change(present settings, r *vmreplicav1.UpdateAgentRequest) (settings, error) {
	if len(r.GetUpdateMask().GetPaths()) == 0 {
		return present, unknownSetting("")
	}
	for _, path := range r.GetUpdateMask().GetPaths() {
		switch path {
		case "bandwidth_limit_bytes_per_second":
			present.BandwidthLimit = r.GetSettings().GetBandwidthLimitBytesPerSecond()
		case "max_transfers":
			present.MaxTransfers = int(r.GetSettings().GetMaxTransfers())
		default:
			return present, unknownSetting(path)
		}
	}
	return present, present.check()
}

func unknownSetting(path string) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%q is not a setting of this agent", path).
		Try("The mask may name bandwidth_limit_bytes_per_second and max_transfers.")
}

// TestConnection tries the way to a replica.
func (s *agentService) TestConnection(ctx context.Context, r *vmreplicav1.TestConnectionRequest,
) (*vmreplicav1.TestConnectionResponse, error) {
	checks, err := peer.Test(ctx, s.agent.peers, r.GetAddress())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.TestConnectionResponse{}
	for _, check := range checks {
		answer.Checks = append(answer.Checks, &vmreplicav1.ConnectionCheck{
			Name: check.Name, Passed: check.Passed, Message: check.Message, Remedy: check.Remedy,
			Duration: durationpb.New(check.Duration),
		})
	}
	return answer, nil
}
