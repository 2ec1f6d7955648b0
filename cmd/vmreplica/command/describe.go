package command

import (
	"context"

	"github.com/spf13/cobra"

	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) describe() *cobra.Command {
	return &cobra.Command{
		Use:   "describe VM",
		Short: "Tell everything that is known of a VM's replication.",
		Long: `Tell everything that is known of a VM's replication.

Use it when "get" shows that something is wrong, or to see what was proven and when. The page has the reasons for
the health with what to do, the disks with their layers, the proof, the counters and the last resync.
Like Measure-VMReplication.`,
		Example: `  vmreplica describe web01
  vmreplica --server replica.example:7443 describe web01`,
		GroupID: groupLook, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			r, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
			if err != nil {
				return err
			}
			var last *vmreplicav1.Resync
			if replication.ID(r.GetStatus().GetResync()).Valid() && !v.printer.ForMachines() {
				// The replica has no resyncs; the page does without.
				last, _ = v.resyncService().GetResync(ctx, &vmreplicav1.GetResyncRequest{Vm: vm, Id: r.GetStatus().GetResync()})
			}
			return v.printer.Describe(r, last)
		}),
	}
}
