package primary

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"vmreplica/agent-primary/relationship"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// resyncService serves resyncs.
type resyncService struct {
	vmreplicav1.UnimplementedResyncServiceServer
	manager *relationship.Manager
	callers callers
	// stopping is closed when the agent ends, so that watches do.
	stopping <-chan struct{}
}

// StartResync starts one.
func (s *resyncService) StartResync(ctx context.Context, r *vmreplicav1.StartResyncRequest) (*vmreplicav1.Resync, error) {
	kind, err := api.ResyncKindFromProto(r.GetKind())
	if err != nil {
		return nil, failure.Locate(err, r.GetVm(), "")
	}
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	return shownResync(s.manager.Start(ctx, r.GetVm(), relationship.Start{
		Kind: kind, Time: api.TimeFromProto(r.GetStartTime()), Force: r.GetForce(), Restart: r.GetRestart(),
	}, request))
}

func shownResync(view relationship.ResyncView, err error) (*vmreplicav1.Resync, error) {
	if err != nil {
		return nil, err
	}
	return resyncToProto(view), nil
}

// CancelResync cancels the one that runs.
func (s *resyncService) CancelResync(ctx context.Context, r *vmreplicav1.CancelResyncRequest) (*vmreplicav1.Resync, error) {
	request, err := s.callers.request(ctx, r)
	if err != nil {
		return nil, err
	}
	return shownResync(s.manager.Cancel(ctx, r.GetVm(), replication.ID(r.GetId()), request))
}

// GetResync shows one.
func (s *resyncService) GetResync(_ context.Context, r *vmreplicav1.GetResyncRequest) (*vmreplicav1.Resync, error) {
	return shownResync(s.manager.Resync(r.GetVm(), replication.ID(r.GetId())))
}

// ListResyncs shows a VM's, newest first; the page token is the number of the last one before.
func (s *resyncService) ListResyncs(_ context.Context, r *vmreplicav1.ListResyncsRequest,
) (*vmreplicav1.ListResyncsResponse, error) {
	views, err := s.manager.Resyncs(r.GetVm())
	if err != nil {
		return nil, err
	}
	// Newest first: the larger the number the smaller the key.
	key := func(v relationship.ResyncView) string { return fmt.Sprintf("%020d", ^v.Number) }
	page, next, err := pageOf(views, key, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListResyncsResponse{NextPageToken: next}
	for _, view := range page {
		answer.Resyncs = append(answer.Resyncs, resyncToProto(view))
	}
	return answer, nil
}

// WatchResync sends how one stands, then what changes, until it has ended.
func (s *resyncService) WatchResync(r *vmreplicav1.WatchResyncRequest, stream grpc.ServerStreamingServer[vmreplicav1.Resync]) error {
	id := replication.ID(r.GetId())
	var sent *vmreplicav1.Resync
	look := func() (done bool, err error) {
		view, err := s.manager.Resync(r.GetVm(), id)
		if err != nil {
			return false, err
		}
		id = view.ID
		if message := resyncToProto(view); !proto.Equal(message, sent) {
			sent = message
			if err := stream.Send(message); err != nil {
				return false, fmt.Errorf("send: %w", err)
			}
		}
		return view.State.Ended(), nil
	}
	if done, err := look(); done || err != nil {
		return err
	}
	return each(stream.Context(), s.stopping, look)
}
