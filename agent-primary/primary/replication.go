package primary

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// watchInterval is the least time between two messages about one thing.
const watchInterval = time.Second

// Bounds of an operator's labels.
const (
	maxLabels     = 64
	maxLabelBytes = 256
)

// replicationService serves relationships.
type replicationService struct {
	vmreplicav1.UnimplementedReplicationServiceServer
	manager *relationship.Manager
	callers callers
	// stopping is closed when the agent ends, so that watches do.
	stopping <-chan struct{}
	// socket is where machines attach their disks.
	socket string
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%d labels are more than %d", len(labels), maxLabels)
	}
	for key, value := range labels {
		if key == "" || len(key) > maxLabelBytes || len(value) > maxLabelBytes {
			return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
				"a label has a key, and key and value have at most %d bytes each", maxLabelBytes)
		}
	}
	return nil
}

// CreateReplication makes a relationship.
func (s *replicationService) CreateReplication(ctx context.Context, r *vmreplicav1.CreateReplicationRequest,
) (*vmreplicav1.Replication, error) {
	asked := r.GetReplication()
	spec, err := api.SpecFromProto(asked.GetSpec())
	if err != nil {
		return nil, failure.Locate(err, asked.GetName(), "")
	}
	if err := checkLabels(asked.GetLabels()); err != nil {
		return nil, err
	}
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	view, err := s.manager.Create(ctx, relationship.Create{
		Name: asked.GetName(), Labels: asked.GetLabels(), Spec: spec, ValidateOnly: r.GetValidateOnly(), Request: request,
	})
	return shown(view, err)
}

func shown(view relationship.View, err error) (*vmreplicav1.Replication, error) {
	if err != nil {
		return nil, err
	}
	return replicationToProto(view), nil
}

// GetReplication shows one relationship.
func (s *replicationService) GetReplication(_ context.Context, r *vmreplicav1.GetReplicationRequest,
) (*vmreplicav1.Replication, error) {
	return shown(s.manager.Get(r.GetName()))
}

// ListReplications shows all of them, by name.
func (s *replicationService) ListReplications(_ context.Context, r *vmreplicav1.ListReplicationsRequest,
) (*vmreplicav1.ListReplicationsResponse, error) {
	page, next, err := pageOf(s.manager.List(), func(v relationship.View) string { return v.Name },
		r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListReplicationsResponse{NextPageToken: next}
	for _, view := range page {
		answer.Replications = append(answer.Replications, replicationToProto(view))
	}
	return answer, nil
}

// UpdateReplication changes what the mask names: see settable.
func (s *replicationService) UpdateReplication(ctx context.Context, r *vmreplicav1.UpdateReplicationRequest,
) (*vmreplicav1.Replication, error) {
	asked := r.GetReplication()
	update := relationship.Update{}
	if len(r.GetUpdateMask().GetPaths()) == 0 {
		return nil, unsettable("")
	}
	for _, path := range r.GetUpdateMask().GetPaths() {
		read, known := settable[path]
		if !known {
			return nil, unsettable(path)
		}
		if err := read(&update, asked); err != nil {
			return nil, failure.Locate(err, asked.GetName(), "")
		}
	}
	if err := s.checkUpdate(r, &update); err != nil {
		return nil, failure.Locate(err, asked.GetName(), "")
	}
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	return shown(s.manager.Update(ctx, asked.GetName(), update, request))
}

func unsettable(path string) error {
	return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "%q is not a setting that can be changed", path).
		Try("The mask may name %s.", strings.Join(slices.Sorted(maps.Keys(settable)), ", "))
}

// checkUpdate checks the new values as a creation would, and reads the etag.
func (s *replicationService) checkUpdate(r *vmreplicav1.UpdateReplicationRequest, update *relationship.Update) error {
	if err := checkLabels(update.Labels); err != nil {
		return err
	}
	if etag := r.GetReplication().GetEtag(); etag != "" {
		revision, err := strconv.ParseUint(etag, 10, 64)
		if err != nil || revision == 0 {
			return failure.New(failure.Conflict, failure.ReasonWrongState, "it was changed since it was read").
				Try("Read it again and repeat the change.")
		}
		update.Revision = revision
	}
	present, err := s.manager.Get(r.GetReplication().GetName())
	if err != nil || update.ReplicaAddress == "" && !named(r, "spec.replica_address") {
		return err
	}
	spec := present.Spec
	spec.ReplicaAddress = update.ReplicaAddress
	_, err = api.SpecFromProto(api.SpecToProto(spec))
	return err
}

func named(r *vmreplicav1.UpdateReplicationRequest, path string) bool {
	for _, given := range r.GetUpdateMask().GetPaths() {
		if given == path {
			return true
		}
	}
	return false
}

// DeleteReplication ends a relationship.
func (s *replicationService) DeleteReplication(ctx context.Context, r *vmreplicav1.DeleteReplicationRequest,
) (*vmreplicav1.DeleteReplicationResponse, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	notes, err := s.manager.Remove(ctx, r.GetName(), relationship.Remove{
		DeleteData: r.GetDeleteReplicaData(), Force: r.GetForce(), Request: request,
	})
	if err != nil {
		return nil, err
	}
	return &vmreplicav1.DeleteReplicationResponse{Notes: notes}, nil
}

// SuspendReplication suspends replication of the VM.
func (s *replicationService) SuspendReplication(ctx context.Context, r *vmreplicav1.SuspendReplicationRequest,
) (*vmreplicav1.Replication, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	return shown(s.manager.Suspend(ctx, r.GetName(), r.GetReason(), request))
}

// ResumeReplication resumes it, and starts a resync if that is asked for.
func (s *replicationService) ResumeReplication(ctx context.Context, r *vmreplicav1.ResumeReplicationRequest,
) (*vmreplicav1.Replication, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.GetResynchronize() {
		return shown(s.manager.Resynchronize(ctx, r.GetName(), api.TimeFromProto(r.GetResyncStartTime()), request))
	}
	if r.GetResyncStartTime() != nil {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a start time is given, and no resync asked for").
			On(r.GetName(), "").Try("Ask for one with --resynchronize.")
	}
	return shown(s.manager.Resume(ctx, r.GetName(), request))
}

// ResetStatistics sets the counters to zero.
func (s *replicationService) ResetStatistics(ctx context.Context, r *vmreplicav1.ResetStatisticsRequest,
) (*vmreplicav1.Replication, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	return shown(s.manager.ResetStatistics(ctx, r.GetName(), request))
}

// WatchReplications sends what is, then what changes.
func (s *replicationService) WatchReplications(r *vmreplicav1.WatchReplicationsRequest,
	stream grpc.ServerStreamingServer[vmreplicav1.WatchReplicationsResponse]) error {
	sent := map[string]*vmreplicav1.Replication{}
	if err := s.sendChanges(r.GetName(), sent, stream); err != nil {
		return err
	}
	complete := &vmreplicav1.WatchReplicationsResponse_SnapshotComplete{SnapshotComplete: true}
	if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: complete}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return each(stream.Context(), s.stopping, func() (bool, error) {
		return false, s.sendChanges(r.GetName(), sent, stream)
	})
}

// each calls look once a watchInterval until it is done, fails, the caller goes or the agent stops.
func each(ctx context.Context, stopping <-chan struct{}, look func() (done bool, err error)) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-stopping:
			return stoppingFailure()
		case <-ticker.C:
		}
		if done, err := look(); done || err != nil {
			return err
		}
	}
}

// sendChanges sends what differs from sent, and brings it up to date.
func (s *replicationService) sendChanges(name string, sent map[string]*vmreplicav1.Replication,
	stream grpc.ServerStreamingServer[vmreplicav1.WatchReplicationsResponse]) error {
	present := map[string]bool{}
	for _, view := range s.manager.List() {
		if name != "" && view.Name != name {
			continue
		}
		present[view.Name] = true
		message := replicationToProto(view)
		if proto.Equal(message, sent[view.Name]) {
			continue
		}
		sent[view.Name] = message
		update := &vmreplicav1.WatchReplicationsResponse_Replication{Replication: message}
		if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: update}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	for vm := range sent {
		if present[vm] {
			continue
		}
		delete(sent, vm)
		update := &vmreplicav1.WatchReplicationsResponse_Deleted{Deleted: vm}
		if err := stream.Send(&vmreplicav1.WatchReplicationsResponse{Update: update}); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}
