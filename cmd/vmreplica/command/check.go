package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check [VM]",
		Short: "Check the health for a monitoring system.",
		Long: `Check the health for a monitoring system.

Use it as a plugin of Nagios, Icinga, Checkmk or Zabbix: one line with figures behind the bar, and the exit code 0
for OK, 1 for WARNING, 2 for CRITICAL, 3 for UNKNOWN, which is also the code when the agent cannot be reached. A
certificate of role viewer is enough.`,
		Example: `  vmreplica check
  vmreplica check web01`,
		GroupID: groupLook, Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			var list []*vmreplicav1.Replication
			err := v.ofAnyVM(func(ctx context.Context, vm string) (err error) {
				list, err = v.checked(ctx, vm)
				return err
			})(command, args)
			line, code := render.Monitor(list, v.Now())
			if err != nil {
				line, code = render.MonitorFailure(v.explained(command.Context(), err))
			}
			fmt.Fprintln(v.Out, line)
			return exit{code}
		},
	}
}

func (v *invocation) checked(ctx context.Context, vm string) ([]*vmreplicav1.Replication, error) {
	if vm == "" {
		all, err := v.listReplications(ctx)
		return all.GetReplications(), err
	}
	r, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
	return []*vmreplicav1.Replication{r}, err
}
