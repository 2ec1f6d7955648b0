package replica

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// watchInterval is the least time between two looks of a watch.
const watchInterval = time.Second

// replicationService shows the VMs that the replica holds. Their settings and states are the primary's.
type replicationService struct {
	vmreplicav1.UnimplementedReplicationServiceServer
	registry *chain.Registry
	storage  *storage.Storage
	observer *observer
	requests *requests
	remove   func(ctx context.Context, vm string, deleteData bool) ([]string, error)
}

func wrongRole(what string) error {
	return failure.New(failure.Precondition, failure.ReasonWrongRole, "this agent is a replica: %s is done on the primary", what).
		Try("Call the primary's agent.")
}

func (s *replicationService) show(record chain.Record) *vmreplicav1.Replication {
	return replicationOf(s.observer.observe(record), s.registry, s.storage)
}

// GetReplication shows one VM.
func (s *replicationService) GetReplication(_ context.Context, r *vmreplicav1.GetReplicationRequest,
) (*vmreplicav1.Replication, error) {
	record, err := s.registry.Table().Get(r.GetName())
	if err != nil {
		return nil, err
	}
	return s.show(record), nil
}

// ListReplications shows all VMs, by name; the page token is the last name of the page before.
func (s *replicationService) ListReplications(_ context.Context, r *vmreplicav1.ListReplicationsRequest,
) (*vmreplicav1.ListReplicationsResponse, error) {
	records, err := s.registry.Table().List()
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(records, func(r chain.Record) string { return r.VM }, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListReplicationsResponse{NextPageToken: next}
	for _, record := range page {
		answer.Replications = append(answer.Replications, s.show(record))
	}
	return answer, nil
}

// pageOf is the page of rows, which are ordered by key, after the token.
func pageOf[T any](rows []T, key func(T) string, size int32, token string) (page []T, next string, err error) {
	if size < 0 || size > 1000 {
		return nil, "", failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a page has 1 to 1000 entries, not %d", size)
	}
	if size == 0 {
		size = 100
	}
	for _, row := range rows {
		if key(row) <= token {
			continue
		}
		if len(page) == int(size) {
			return page, key(page[len(page)-1]), nil
		}
		page = append(page, row)
	}
	return page, "", nil
}

// WatchReplications sends what is, then what changes.
func (s *replicationService) WatchReplications(r *vmreplicav1.WatchReplicationsRequest,
	stream grpc.ServerStreamingServer[vmreplicav1.WatchReplicationsResponse]) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	sent := map[string]*vmreplicav1.Replication{}
	if err := s.sendChanges(r.GetName(), sent, stream); err != nil {
		return err
	}
	complete := &vmreplicav1.WatchReplicationsResponse_SnapshotComplete{SnapshotComplete: true}
	if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: complete}); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-ticker.C:
		}
		if err := s.sendChanges(r.GetName(), sent, stream); err != nil {
			return err
		}
	}
}

// sendChanges sends what differs from sent, and brings it up to date.
func (s *replicationService) sendChanges(name string, sent map[string]*vmreplicav1.Replication,
	stream grpc.ServerStreamingServer[vmreplicav1.WatchReplicationsResponse]) error {
	records, err := s.registry.Table().List()
	if err != nil {
		return err
	}
	present := map[string]bool{}
	for _, record := range records {
		if name != "" && record.VM != name {
			continue
		}
		present[record.VM] = true
		shown := s.show(record)
		if proto.Equal(shown, sent[record.VM]) {
			continue
		}
		update := &vmreplicav1.WatchReplicationsResponse_Replication{Replication: shown}
		if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: update}); err != nil {
			return err
		}
		sent[record.VM] = shown
	}
	for vm := range sent {
		if present[vm] {
			continue
		}
		update := &vmreplicav1.WatchReplicationsResponse_Deleted{Deleted: vm}
		if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: update}); err != nil {
			return err
		}
		delete(sent, vm)
	}
	return nil
}

// DeleteReplication ends the relationship here though the primary was not asked: only with force, for a primary
// that does not know the VM any more.
func (s *replicationService) DeleteReplication(ctx context.Context, r *vmreplicav1.DeleteReplicationRequest,
) (*vmreplicav1.DeleteReplicationResponse, error) {
	return rememberAfter(ctx, s.requests, r, r.GetRequestId(), new(vmreplicav1.DeleteReplicationResponse),
		func() (*vmreplicav1.DeleteReplicationResponse, error) { return s.delete(ctx, r) })
}

func (s *replicationService) delete(ctx context.Context, r *vmreplicav1.DeleteReplicationRequest,
) (*vmreplicav1.DeleteReplicationResponse, error) {
	if _, err := s.registry.Table().Get(r.GetName()); err != nil {
		return nil, err
	}
	if !r.GetForce() {
		return nil, failure.New(failure.Precondition, failure.ReasonWrongRole,
			"a replication is removed on its primary").On(r.GetName(), "").
			Try("Remove it there; when that primary is gone or does not know the VM, repeat this with --force.")
	}
	notes, err := s.remove(ctx, r.GetName(), r.GetDeleteReplicaData())
	if err != nil {
		return nil, err
	}
	return &vmreplicav1.DeleteReplicationResponse{Notes: notes}, nil
}

// CreateReplication is the primary's.
func (s *replicationService) CreateReplication(context.Context, *vmreplicav1.CreateReplicationRequest,
) (*vmreplicav1.Replication, error) {
	return nil, wrongRole("creating a replication")
}

// UpdateReplication is the primary's.
func (s *replicationService) UpdateReplication(context.Context, *vmreplicav1.UpdateReplicationRequest,
) (*vmreplicav1.Replication, error) {
	return nil, wrongRole("changing a replication")
}

// SuspendReplication is the primary's.
func (s *replicationService) SuspendReplication(context.Context, *vmreplicav1.SuspendReplicationRequest,
) (*vmreplicav1.Replication, error) {
	return nil, wrongRole("suspending replication")
}

// ResumeReplication is the primary's.
func (s *replicationService) ResumeReplication(context.Context, *vmreplicav1.ResumeReplicationRequest,
) (*vmreplicav1.Replication, error) {
	return nil, wrongRole("resuming replication")
}

// ResetStatistics is the primary's.
func (s *replicationService) ResetStatistics(context.Context, *vmreplicav1.ResetStatisticsRequest,
) (*vmreplicav1.Replication, error) {
	return nil, wrongRole("resetting statistics")
}
