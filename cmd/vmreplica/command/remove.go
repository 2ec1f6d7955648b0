package command

import (
	"context"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) remove() *cobra.Command {
	request := &vmreplicav1.DeleteReplicationRequest{}
	command := &cobra.Command{
		Use:   "remove VM",
		Short: "End the replication of a VM.",
		Long: `End the replication of a VM.

Use it when the VM is not to be replicated any more. The VM and its disks are not touched; the replica's copy stays
unless --delete-replica-data is given. Call it on the primary; on the replica, with --force, only for a VM that its
primary does not know any more. Like Remove-VMReplication.`,
		Example: `  vmreplica remove web01
  vmreplica remove web01 --delete-replica-data`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			request.Name, request.RequestId = vm, v.requestID
			removed, err := v.replications().DeleteReplication(ctx, request)
			if err != nil {
				return err
			}
			return v.printer.Message(removed, func(page *render.Page) {
				page.Line("The VM %s is not replicated any more.", vm)
				for _, note := range removed.GetNotes() {
					page.Line("  %s", note)
				}
			})
		}),
	}
	command.Flags().BoolVar(&request.DeleteReplicaData, "delete-replica-data", false, "delete the replica's disks as well")
	command.Flags().BoolVar(&request.Force, "force", false, "end it here though the other agent cannot be reached")
	return command
}
