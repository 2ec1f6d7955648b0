package replica

import (
	"context"
	"strconv"

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
}

// ListEvents lists events, oldest first; the page token is the last sequence of the page before.
func (s *eventService) ListEvents(_ context.Context, r *vmreplicav1.ListEventsRequest,
) (*vmreplicav1.ListEventsResponse, error) {
	after := r.GetAfterSequence()
	if token := r.GetPageToken(); token != "" {
		number, err := strconv.ParseUint(token, 10, 64)
		if err != nil {
			return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the page token is not one of ours")
		}
		after = max(after, number)
	}
	size := int(r.GetPageSize())
	if size < 0 || size > 1000 {
		return nil, failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a page has 1 to 1000 entries, not %d", size)
	}
	if size == 0 {
		size = 100
	}
	events, err := s.log.List(r.GetVm(), after, size)
	if err != nil {
		return nil, err
	}
	answer := &vmreplicav1.ListEventsResponse{}
	for _, e := range events {
		answer.Events = append(answer.Events, eventOf(e))
	}
	if len(events) == size {
		answer.NextPageToken = strconv.FormatUint(events[size-1].Sequence, 10)
	}
	return answer, nil
}

// WatchEvents sends what is kept after a sequence, then each new event.
func (s *eventService) WatchEvents(r *vmreplicav1.WatchEventsRequest,
	stream grpc.ServerStreamingServer[vmreplicav1.Event]) error {
	for e, err := range s.log.Watch(stream.Context(), r.GetVm(), r.GetAfterSequence(), r.GetFromNow()) {
		if err != nil {
			return err
		}
		if err := stream.Send(eventOf(e)); err != nil {
			return err
		}
	}
	return nil
}

func eventOf(e event.Event) *vmreplicav1.Event {
	return &vmreplicav1.Event{
		Id: e.ID, Sequence: e.Sequence, Time: api.TimeToProto(e.Time), Severity: severities[e.Severity], Type: e.Type,
		Vm: e.VM, Disk: e.Disk, Message: e.Message, Details: e.Details,
	}
}

var severities = map[event.Severity]vmreplicav1.Severity{
	event.Information: vmreplicav1.Severity_SEVERITY_INFORMATION,
	event.Warning:     vmreplicav1.Severity_SEVERITY_WARNING,
	event.Error:       vmreplicav1.Severity_SEVERITY_ERROR,
}
