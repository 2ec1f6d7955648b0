package command

import (
	"context"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// pageSize is how many things one call lists.
const pageSize = 500

func (v *invocation) resyncs() *cobra.Command {
	return &cobra.Command{
		Use:   "resyncs VM",
		Short: "List a VM's resyncs, newest first.",
		Long: `List a VM's resyncs, newest first.

Use it to see what was compared, what differed, what was sent and how each ended. The last 50 are kept.`,
		Example: `  vmreplica resyncs web01
  vmreplica resyncs web01 -o json`,
		GroupID: groupLook, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			all := &vmreplicav1.ListResyncsResponse{}
			request := &vmreplicav1.ListResyncsRequest{Vm: vm, PageSize: pageSize}
			for {
				page, err := v.resyncService().ListResyncs(ctx, request)
				if err != nil {
					return err
				}
				all.Resyncs = append(all.Resyncs, page.GetResyncs()...)
				if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
					return v.printer.Resyncs(all)
				}
			}
		}),
	}
}

func (v *invocation) cancelResync() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel-resync VM",
		Short: "Cancel the resync of a VM that has not committed.",
		Long: `Cancel the resync of a VM that has not committed.

Use it when a resync must not go on; the replica's content stays exactly as it was, and resynchronization is
required again. After the commit it is refused: the replica already has the new content. To stop for a while and
keep the position use "suspend".`,
		Example: `  vmreplica cancel-resync web01`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			request := &vmreplicav1.CancelResyncRequest{Vm: vm, RequestId: v.requestID}
			ended, err := v.resyncService().CancelResync(ctx, request)
			if err != nil {
				return err
			}
			return v.printer.Message(ended, func(page *render.Page) {
				page.Line("The %s %s of the VM %s is cancelled; the replica's content is as it was.",
					render.KindWord(ended.GetKind()), ended.GetId(), vm)
			})
		}),
	}
}
