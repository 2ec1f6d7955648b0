package replica

import (
	"context"

	"google.golang.org/grpc"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// resyncService answers that resyncs are the primary's.
type resyncService struct {
	vmreplicav1.UnimplementedResyncServiceServer
}

// StartResync is the primary's.
func (resyncService) StartResync(context.Context, *vmreplicav1.StartResyncRequest) (*vmreplicav1.Resync, error) {
	return nil, wrongRole("starting a resync")
}

// GetResync is the primary's.
func (resyncService) GetResync(context.Context, *vmreplicav1.GetResyncRequest) (*vmreplicav1.Resync, error) {
	return nil, wrongRole("looking at a resync")
}

// ListResyncs is the primary's.
func (resyncService) ListResyncs(context.Context, *vmreplicav1.ListResyncsRequest,
) (*vmreplicav1.ListResyncsResponse, error) {
	return nil, wrongRole("listing resyncs")
}

// WatchResync is the primary's.
func (resyncService) WatchResync(*vmreplicav1.WatchResyncRequest, grpc.ServerStreamingServer[vmreplicav1.Resync]) error {
	return wrongRole("watching a resync")
}

// CancelResync is the primary's.
func (resyncService) CancelResync(context.Context, *vmreplicav1.CancelResyncRequest) (*vmreplicav1.Resync, error) {
	return nil, wrongRole("cancelling a resync")
}
