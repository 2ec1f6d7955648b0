package command_test

import (
	"context"

	"google.golang.org/grpc"

	v1 "vmreplica/proto/vmreplica/v1"
)

func (a *fakeAgent) CreateReplication(_ context.Context, r *v1.CreateReplicationRequest) (*v1.Replication, error) {
	return handle[*v1.CreateReplicationRequest, *v1.Replication](a, "Create", r)
}

func (a *fakeAgent) GetReplication(_ context.Context, r *v1.GetReplicationRequest) (*v1.Replication, error) {
	return handle[*v1.GetReplicationRequest, *v1.Replication](a, "Get", r)
}

func (a *fakeAgent) ListReplications(_ context.Context, r *v1.ListReplicationsRequest) (*v1.ListReplicationsResponse, error) {
	return handle[*v1.ListReplicationsRequest, *v1.ListReplicationsResponse](a, "List", r)
}

func (a *fakeAgent) UpdateReplication(_ context.Context, r *v1.UpdateReplicationRequest) (*v1.Replication, error) {
	return handle[*v1.UpdateReplicationRequest, *v1.Replication](a, "Update", r)
}

func (a *fakeAgent) DeleteReplication(_ context.Context, r *v1.DeleteReplicationRequest) (*v1.DeleteReplicationResponse, error) {
	return handle[*v1.DeleteReplicationRequest, *v1.DeleteReplicationResponse](a, "Delete", r)
}

func (a *fakeAgent) SuspendReplication(_ context.Context, r *v1.SuspendReplicationRequest) (*v1.Replication, error) {
	return handle[*v1.SuspendReplicationRequest, *v1.Replication](a, "Suspend", r)
}

func (a *fakeAgent) ResumeReplication(_ context.Context, r *v1.ResumeReplicationRequest) (*v1.Replication, error) {
	return handle[*v1.ResumeReplicationRequest, *v1.Replication](a, "Resume", r)
}

func (a *fakeAgent) ResetStatistics(_ context.Context, r *v1.ResetStatisticsRequest) (*v1.Replication, error) {
	return handle[*v1.ResetStatisticsRequest, *v1.Replication](a, "Reset", r)
}

func (a *fakeAgent) StartResync(_ context.Context, r *v1.StartResyncRequest) (*v1.Resync, error) {
	return handle[*v1.StartResyncRequest, *v1.Resync](a, "Start", r)
}

func (a *fakeAgent) GetResync(_ context.Context, r *v1.GetResyncRequest) (*v1.Resync, error) {
	return handle[*v1.GetResyncRequest, *v1.Resync](a, "GetResync", r)
}

func (a *fakeAgent) ListResyncs(_ context.Context, r *v1.ListResyncsRequest) (*v1.ListResyncsResponse, error) {
	return handle[*v1.ListResyncsRequest, *v1.ListResyncsResponse](a, "Resyncs", r)
}

func (a *fakeAgent) CancelResync(_ context.Context, r *v1.CancelResyncRequest) (*v1.Resync, error) {
	return handle[*v1.CancelResyncRequest, *v1.Resync](a, "Cancel", r)
}

func (a *fakeAgent) ListEvents(_ context.Context, r *v1.ListEventsRequest) (*v1.ListEventsResponse, error) {
	return handle[*v1.ListEventsRequest, *v1.ListEventsResponse](a, "Events", r)
}

func (a *fakeAgent) GetAgent(_ context.Context, r *v1.GetAgentRequest) (*v1.Agent, error) {
	return handle[*v1.GetAgentRequest, *v1.Agent](a, "Agent", r)
}

func (a *fakeAgent) UpdateAgent(_ context.Context, r *v1.UpdateAgentRequest) (*v1.Agent, error) {
	return handle[*v1.UpdateAgentRequest, *v1.Agent](a, "UpdateAgent", r)
}

func (a *fakeAgent) TestConnection(_ context.Context, r *v1.TestConnectionRequest) (*v1.TestConnectionResponse, error) {
	return handle[*v1.TestConnectionRequest, *v1.TestConnectionResponse](a, "Test", r)
}

func (a *fakeAgent) CreateAuthorization(_ context.Context, r *v1.CreateAuthorizationRequest) (*v1.Authorization, error) {
	return handle[*v1.CreateAuthorizationRequest, *v1.Authorization](a, "Authorize", r)
}

func (a *fakeAgent) UpdateAuthorization(_ context.Context, r *v1.UpdateAuthorizationRequest) (*v1.Authorization, error) {
	return handle[*v1.UpdateAuthorizationRequest, *v1.Authorization](a, "Reauthorize", r)
}

func (a *fakeAgent) ListAuthorizations(_ context.Context, r *v1.ListAuthorizationsRequest) (*v1.ListAuthorizationsResponse, error) {
	return handle[*v1.ListAuthorizationsRequest, *v1.ListAuthorizationsResponse](a, "Authorizations", r)
}

func (a *fakeAgent) DeleteAuthorization(_ context.Context, r *v1.DeleteAuthorizationRequest) (*v1.DeleteAuthorizationResponse, error) {
	return handle[*v1.DeleteAuthorizationRequest, *v1.DeleteAuthorizationResponse](a, "Deauthorize", r)
}

func (a *fakeAgent) GetAttachment(_ context.Context, r *v1.GetAttachmentRequest) (*v1.Attachment, error) {
	return handle[*v1.GetAttachmentRequest, *v1.Attachment](a, "Attachment", r)
}

func (a *fakeAgent) ListRecoveryPoints(_ context.Context, r *v1.ListRecoveryPointsRequest) (*v1.ListRecoveryPointsResponse, error) {
	return handle[*v1.ListRecoveryPointsRequest, *v1.ListRecoveryPointsResponse](a, "Points", r)
}

func (a *fakeAgent) GetRecoveryPoint(_ context.Context, r *v1.GetRecoveryPointRequest) (*v1.RecoveryPoint, error) {
	return handle[*v1.GetRecoveryPointRequest, *v1.RecoveryPoint](a, "Point", r)
}

func (a *fakeAgent) DeleteRecoveryPoint(_ context.Context, r *v1.DeleteRecoveryPointRequest) (*v1.DeleteRecoveryPointResponse, error) {
	return handle[*v1.DeleteRecoveryPointRequest, *v1.DeleteRecoveryPointResponse](a, "DeletePoint", r)
}

func (a *fakeAgent) StartFailover(_ context.Context, r *v1.StartFailoverRequest) (*v1.Failover, error) {
	return handle[*v1.StartFailoverRequest, *v1.Failover](a, "Failover", r)
}

func (a *fakeAgent) GetFailover(_ context.Context, r *v1.GetFailoverRequest) (*v1.Failover, error) {
	return handle[*v1.GetFailoverRequest, *v1.Failover](a, "GetFailover", r)
}

// The watches and the reading answer with what the test does to the stream.

func (a *fakeAgent) WatchResync(r *v1.WatchResyncRequest, stream grpc.ServerStreamingServer[v1.Resync]) error {
	do, err := handle[*v1.WatchResyncRequest, func(grpc.ServerStreamingServer[v1.Resync]) error](a, "WatchResync", r)
	if err != nil {
		return err
	}
	return do(stream)
}

func (a *fakeAgent) WatchReplications(r *v1.WatchReplicationsRequest, stream grpc.ServerStreamingServer[v1.WatchReplicationsResponse]) error {
	do, err := handle[*v1.WatchReplicationsRequest, func(grpc.ServerStreamingServer[v1.WatchReplicationsResponse]) error](a, "Watch", r)
	if err != nil {
		return err
	}
	return do(stream)
}

func (a *fakeAgent) ReadRecoveryPoint(r *v1.ReadRecoveryPointRequest, stream grpc.ServerStreamingServer[v1.ReadRecoveryPointResponse]) error {
	do, err := handle[*v1.ReadRecoveryPointRequest, func(grpc.ServerStreamingServer[v1.ReadRecoveryPointResponse]) error](a, "Read", r)
	if err != nil {
		return err
	}
	return do(stream)
}

func (a *fakeAgent) WatchEvents(r *v1.WatchEventsRequest, stream grpc.ServerStreamingServer[v1.Event]) error {
	do, err := handle[*v1.WatchEventsRequest, func(grpc.ServerStreamingServer[v1.Event]) error](a, "WatchEvents", r)
	if err != nil {
		return err
	}
	return do(stream)
}
