package replica

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/internal/api"
	"vmreplica/internal/build"
	"vmreplica/internal/daemon"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// agentService shows the agent.
type agentService struct {
	vmreplicav1.UnimplementedAgentServiceServer
	credentials *transport.Credentials
	started     time.Time
}

// GetAgent shows the agent. It has no settings: the limits of a transfer are its primary's.
func (s *agentService) GetAgent(context.Context, *vmreplicav1.GetAgentRequest) (*vmreplicav1.Agent, error) {
	return &vmreplicav1.Agent{
		Identity: s.credentials.Identity().String(), Role: vmreplicav1.Role_ROLE_REPLICA, Version: build.Read().Version,
		StartTime: timestamppb.New(s.started), CertificateExpireTime: api.TimeToProto(s.credentials.NotAfter()),
		PlatformLimits: daemon.PlatformLimits(),
	}, nil
}

// UpdateAgent is the primary's: its transfers are what the settings bound.
func (s *agentService) UpdateAgent(context.Context, *vmreplicav1.UpdateAgentRequest) (*vmreplicav1.Agent, error) {
	return nil, wrongRole("limiting transfers")
}

// TestConnection is the primary's: it tries the way to a replica.
func (s *agentService) TestConnection(context.Context, *vmreplicav1.TestConnectionRequest,
) (*vmreplicav1.TestConnectionResponse, error) {
	return nil, wrongRole("testing a connection")
}
