package command

import (
	"context"

	"github.com/spf13/cobra"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) get() *cobra.Command {
	var watch bool
	command := &cobra.Command{
		Use:   "get [VM]",
		Short: "Show how the replicated VMs stand.",
		Long: `Show how the replicated VMs stand.

Use it first: a row for each VM with its state, what the agent does, its health and when it was last synchronized,
and below it why the health is not Normal. With --watch the table follows what changes. Like Get-VMReplication.`,
		Example: `  vmreplica get
  vmreplica get web01 --watch
  vmreplica get -o wide
  vmreplica get web01 -o json`,
		GroupID: groupLook, Args: cobra.MaximumNArgs(1),
		RunE: v.ofAnyVM(func(ctx context.Context, vm string) error {
			if watch {
				return v.watch(ctx, vm)
			}
			return v.show(ctx, vm)
		}),
	}
	command.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing what changes, until Ctrl-C")
	return command
}

// ofAnyVM is remote for verbs that take a VM or, without one, all of them: an empty name.
func (v *invocation) ofAnyVM(run func(ctx context.Context, vm string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) error {
		if len(args) == 1 {
			return v.ofVM(run)(command, args)
		}
		return v.remote(func(ctx context.Context, _ []string) error { return run(ctx, "") })(command, args)
	}
}

// show writes one VM, or all.
func (v *invocation) show(ctx context.Context, vm string) error {
	if vm != "" {
		r, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
		if err != nil {
			return err
		}
		return v.printer.Replication(r)
	}
	list, err := v.listReplications(ctx)
	if err != nil {
		return err
	}
	return v.printer.Replications(list)
}

func (v *invocation) listReplications(ctx context.Context) (*vmreplicav1.ListReplicationsResponse, error) {
	all := &vmreplicav1.ListReplicationsResponse{}
	request := &vmreplicav1.ListReplicationsRequest{PageSize: pageSize}
	for {
		page, err := v.replications().ListReplications(ctx, request)
		if err != nil {
			return nil, err
		}
		all.Replications = append(all.Replications, page.GetReplications()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all, nil
		}
	}
}
