package command

import (
	"context"

	"github.com/spf13/cobra"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) measure() *cobra.Command {
	return &cobra.Command{
		Use:   "measure [VM]",
		Short: "Show how well replication has kept up since the counters were reset.",
		Long: `Show how well replication has kept up since the counters were reset.

Use it to see whether the interval and the link suffice: cycles that were completed, missed and failed, how much and
how long they took on the average and at most, what is pending, and the reasons for the health. "reset-statistics"
begins anew. Like Measure-VMReplication.`,
		Example: `  vmreplica measure
  vmreplica measure web01
  vmreplica measure web01 -o json | jq .status.statistics`,
		GroupID: groupLook, Args: cobra.MaximumNArgs(1),
		RunE: v.ofAnyVM(func(ctx context.Context, vm string) error {
			if vm == "" {
				list, err := v.listReplications(ctx)
				if err != nil {
					return err
				}
				return v.printer.Measures(list)
			}
			r, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
			if err != nil {
				return err
			}
			return v.printer.Measure(r)
		}),
	}
}
