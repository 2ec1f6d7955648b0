package command

import (
	"context"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) pointService() vmreplicav1.RecoveryPointServiceClient {
	return vmreplicav1.NewRecoveryPointServiceClient(v.agent)
}

func (v *invocation) recoveryPoints() *cobra.Command {
	var id string
	command := &cobra.Command{
		Use:   "recovery-points VM",
		Short: "List the instants of a VM that its replica can be read at.",
		Long: `List the instants of a VM that its replica can be read at.

Use it on the replica before "export" or "failover", to choose a point; any unambiguous beginning of its id names it.
The newest content is the last row and is replaced by the next cycle; the others are hourly and stay until there are
more than --recovery-points of "enable" or "set". With --delete one is merged away. Like Get-VMSnapshot of a replica.`,
		Example: `  vmreplica --server replica.example:7443 recovery-points web01
  vmreplica --server replica.example:7443 recovery-points web01 --delete 4f1c0e8a5b7d`,
		GroupID: groupRecover, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			if id != "" {
				return v.deletePoint(ctx, vm, id)
			}
			list, err := v.pointService().ListRecoveryPoints(ctx, &vmreplicav1.ListRecoveryPointsRequest{Vm: vm})
			if err != nil {
				return err
			}
			return v.printer.RecoveryPoints(list)
		}),
	}
	command.Flags().StringVar(&id, "delete", "", "merge the point `ID` away; it cannot be brought back")
	return command
}

// deletePoint deletes the point that an id or its beginning names, found first so that what was deleted can be said.
func (v *invocation) deletePoint(ctx context.Context, vm, id string) error {
	point, err := v.pointService().GetRecoveryPoint(ctx, &vmreplicav1.GetRecoveryPointRequest{Vm: vm, Id: id})
	if err != nil {
		return err
	}
	if point.GetLatest() {
		return misused("%s is the newest content, which cannot be deleted", id).
			Try("Which are older: %s", v.typed("recovery-points %s", vm))
	}
	deleted, err := v.pointService().DeleteRecoveryPoint(ctx, &vmreplicav1.DeleteRecoveryPointRequest{
		Vm: vm, Id: point.GetId(), RequestId: v.requestID,
	})
	if err != nil {
		return err
	}
	return v.printer.Message(deleted, func(page *render.Page) {
		page.Line("The recovery point %s of the VM %s, of %s, is deleted; its space comes back when it is merged.",
			point.GetId(), vm, render.Moment(point.GetTime().AsTime(), v.Now()))
	})
}
