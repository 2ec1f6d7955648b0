package command

import (
	"context"

	"github.com/spf13/cobra"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) events() *cobra.Command {
	var follow bool
	command := &cobra.Command{
		Use:   "events [VM]",
		Short: "Show what happened, oldest first.",
		Long: `Show what happened, oldest first.

Use it to find out when and why something changed. The numbers are Hyper-V's where it has one (29242: a resync
started, 29244: it finished), others are from 60001. With -o json each event is one line. Events are kept 90 days.`,
		Example: `  vmreplica events web01
  vmreplica events --follow
  vmreplica events -o json | jq 'select(.id == 29244)'`,
		GroupID: groupLook, Args: cobra.MaximumNArgs(1),
		RunE: v.ofAnyVM(func(ctx context.Context, vm string) error {
			last, err := v.listEvents(ctx, vm)
			if err != nil || !follow {
				return err
			}
			return v.followEvents(ctx, vm, last)
		}),
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each new event, until Ctrl-C")
	return command
}

func (v *invocation) eventService() vmreplicav1.EventServiceClient {
	return vmreplicav1.NewEventServiceClient(v.agent)
}

// listEvents writes what is kept, a page of events at a time, and answers the last sequence.
func (v *invocation) listEvents(ctx context.Context, vm string) (last uint64, err error) {
	request := &vmreplicav1.ListEventsRequest{Vm: vm, PageSize: pageSize}
	page, err := v.eventService().ListEvents(ctx, request)
	if err != nil {
		return 0, err
	}
	if err := v.printer.EventHeading(); err != nil {
		return 0, err
	}
	for {
		for _, event := range page.GetEvents() {
			if err := v.printer.Event(event); err != nil {
				return last, err
			}
			last = event.GetSequence()
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return last, nil
		}
		if page, err = v.eventService().ListEvents(ctx, request); err != nil {
			return last, err
		}
	}
}

// followEvents writes what comes after a sequence until ctx ends, each event once, over lost connections.
func (v *invocation) followEvents(ctx context.Context, vm string, last uint64) error {
	retry := v.reconnects(v, "no event is missed")
	for {
		err := v.watchEvents(ctx, vm, &last, retry)
		if err := retry.after(ctx, err); err != nil {
			return err
		}
	}
}

func (v *invocation) watchEvents(ctx context.Context, vm string, last *uint64, retry *reconnection) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v.eventService().WatchEvents(ctx, &vmreplicav1.WatchEventsRequest{Vm: vm, AfterSequence: *last})
	if err != nil {
		return err
	}
	return receive(ctx, cancel, stream.Recv, func(event *vmreplicav1.Event, isNew bool) error {
		if !isNew || event.GetSequence() <= *last {
			return nil
		}
		retry.answered()
		*last = event.GetSequence()
		return v.printer.Event(event)
	})
}
