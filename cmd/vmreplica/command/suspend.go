package command

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) suspend() *cobra.Command {
	var reason string
	command := &cobra.Command{
		Use:   "suspend VM",
		Short: "Suspend replication of a VM; the machine itself runs on.",
		Long: `Replication of the VM is suspended; the machine itself runs on.

Use it to free the link or the storage for a while. What the machine writes meanwhile is marked and sent after
"resume", so nothing is compared again; only if more accumulates than the HRL's limit a resync is required. A running
resync keeps its position and goes on from there. Like Suspend-VMReplication.`,
		Example: `  vmreplica suspend web01 --reason "link maintenance until Monday"`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			request := &vmreplicav1.SuspendReplicationRequest{Name: vm, Reason: reason, RequestId: v.requestID}
			r, err := v.replications().SuspendReplication(ctx, request)
			if err != nil {
				return err
			}
			return v.printer.Message(r, func(page *render.Page) {
				page.Line("Replication of the VM %s is suspended (%s); the machine itself runs on.", vm,
					render.Word(r.GetStatus().GetState()))
				page.Line("Go on with: %s", v.typed("resume %s", vm))
			})
		}),
	}
	command.Flags().StringVar(&reason, "reason", "", "why, in a `SENTENCE` that is shown until it is resumed")
	return command
}

func (v *invocation) resume() *cobra.Command {
	flags := &startFlags{}
	var resynchronize bool
	command := &cobra.Command{
		Use:   "resume VM",
		Short: "Resume replication of a VM; the machine itself runs on.",
		Long: `Replication of the VM is resumed; the machine itself runs on.

Use it after "suspend": it goes on where it stopped, and so does a suspended resync. With --resynchronize everything
is compared, now or at a time up to 7 days ahead, whether it is required or not; its commit deletes the recovery
points, unless nothing differed. "resync --force" is short for suspend and this. With --wait the command ends when
that resync has ended, as with "resync --wait".
Like Resume-VMReplication [-Resynchronize [-ResynchronizeStartTime TIME]].`,
		Example: `  vmreplica resume web01
  vmreplica resume web01 --resynchronize --wait
  vmreplica resume web01 --resynchronize --at 22:30`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			if (flags.at != "" || flags.wait) && !resynchronize {
				return misused("--at and --wait are of a resync").Try("Give --resynchronize as well.")
			}
			at, err := v.startTime(flags.at)
			if err != nil {
				return err
			}
			r, err := v.replications().ResumeReplication(ctx, &vmreplicav1.ResumeReplicationRequest{
				Name: vm, Resynchronize: resynchronize, ResyncStartTime: at, RequestId: v.requestID,
			})
			if err != nil {
				return err
			}
			if flags.wait {
				return v.awaitNamed(ctx, vm, r.GetStatus().GetResync())
			}
			return v.printer.Message(r, func(page *render.Page) {
				v.resumed(page, r, at, resynchronize)
			})
		}),
	}
	command.Flags().BoolVar(&resynchronize, "resynchronize", false, "compare everything and bring the replica in step, also where that is not required")
	flags.addAt(command)
	flags.addWait(command)
	return command
}

// awaitNamed is await of a resync that another call has begun.
func (v *invocation) awaitNamed(ctx context.Context, vm, id string) error {
	begun, err := v.resyncService().GetResync(ctx, &vmreplicav1.GetResyncRequest{Vm: vm, Id: id})
	if err != nil {
		return err
	}
	return v.await(ctx, begun)
}

// resumed says what a resumption has brought: what goes on, or that nothing does and what starts it. started says that
// a resync was asked for.
func (v *invocation) resumed(page *render.Page, r *vmreplicav1.Replication, at *timestamppb.Timestamp, started bool) {
	vm, status := r.GetName(), r.GetStatus()
	page.Line("Replication of the VM %s is resumed (%s).", vm, render.Word(status.GetState()))
	if at != nil {
		page.Line("It resynchronizes at %s.", render.Moment(at.AsTime(), v.Now()))
	}
	start := ""
	switch status.GetState() {
	case vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE:
		start = "resync " + vm
	case vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION:
		start = "start-initial " + vm
	}
	started = started || status.GetNextResyncTime() != nil
	if start == "" || started {
		page.Line("Follow it with: %s", v.typed("get %s --watch", vm))
		return
	}
	page.Line("Nothing was started by that. Start it with: %s", v.typed("%s", start))
}
