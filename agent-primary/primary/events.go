package primary

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	"vmreplica/internal/api"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// eventService serves the agent's events.
type eventService struct {
	vmreplicav1.UnimplementedEventServiceServer
	log *event.Log
	// stopping is closed when the agent ends, so that watches do.
	stopping <-chan struct{}
}

// ListEvents lists events, oldest first; the page token is the last sequence of the page before.
func (s *eventService) ListEvents(_ context.Context, r *vmreplicav1.ListEventsRequest) (*vmreplicav1.ListEventsResponse, error) {
	after, size := r.GetAfterSequence(), int(r.GetPageSize())
	if token := r.GetPageToken(); token != "" {
		number, err := strconv.ParseUint(token, 10, 64)
		if err != nil {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the page token is not one of ours")
		}
		after = max(after, number)
	}
	if err := checkPageSize(r.GetPageSize()); err != nil {
		return nil, err
	}
	if size == 0 {
		size = defaultPage
	}
	events, err := s.log.List(r.GetVm(), after, size)
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListEventsResponse{}
	for _, e := range events {
		answer.Events = append(answer.Events, api.EventToProto(e))
	}
	if len(events) == size {
		answer.NextPageToken = strconv.FormatUint(events[size-1].Sequence, 10)
	}
	return answer, nil
}

// errStopping ends a watch when the agent does.
var errStopping = errors.New("the agent is stopping")

func stoppingFailure() error {
	return failure.New(failure.Unreachable, failure.ReasonShuttingDown, "%w", errStopping).Try("Call again when it is back.")
}

// WatchEvents sends what is kept after a sequence, then each new event.
func (s *eventService) WatchEvents(r *vmreplicav1.WatchEventsRequest, stream grpc.ServerStreamingServer[vmreplicav1.Event]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	ended := make(chan struct{})
	defer close(ended)
	waiting.Go(func() {
		select {
		case <-s.stopping:
			cancel(stoppingFailure())
		case <-ended:
		}
	})
	for e, err := range s.log.Watch(ctx, r.GetVm(), r.GetAfterSequence(), r.GetFromNow()) {
		if err != nil {
			return err
		}
		if err := stream.Send(api.EventToProto(e)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}
