package command

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// startFlags are the flags of the verbs that start a resync.
type startFlags struct {
	at                   string
	wait, force, restart bool
}

func (f *startFlags) addAt(command *cobra.Command) {
	command.Flags().StringVar(&f.at, "at", "", "begin at `TIME`: 22:30, +2h, or RFC 3339; at most 7 days ahead (default now)")
}

func (f *startFlags) addWait(command *cobra.Command) {
	command.Flags().BoolVar(&f.wait, "wait", false, "wait for the end, with progress; Ctrl-C ends the waiting, not the work")
}

func (v *invocation) startInitial() *cobra.Command {
	flags := &startFlags{}
	command := &cobra.Command{
		Use:   "start-initial VM",
		Short: "Make the first copy of a VM's disks.",
		Long: `Make the first copy of a VM's disks.

Use it once, after "enable". An empty replica is written directly; files adopted with --use-existing are compared
and only what differs is sent. Like Start-VMInitialReplication.`,
		Example: `  vmreplica start-initial web01 --wait
  vmreplica start-initial web01 --at 22:30`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.starts(vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL, flags),
	}
	flags.addAt(command)
	flags.addWait(command)
	return command
}

func (v *invocation) resync() *cobra.Command {
	flags := &startFlags{}
	command := &cobra.Command{
		Use:   "resync VM",
		Short: "Compare a VM's disks with their replica and send what differs.",
		Long: `Compare a VM's disks with their replica and send what differs.

Use it when resynchronization is required, or whenever an untracked VM was changed. The machine may run on, and what
it writes meanwhile is sent at the end, in rounds and one cut. Until the commit the replica keeps its old content and
"cancel-resync" is free; the commit deletes the recovery points, unless nothing differed. A resync that was
interrupted goes on where it was. With --wait the command ends when the replica has merged what it received, and says
when it is committed.
A tracked VM in health needs none and is refused. To have one all the same: "suspend", then "resume --resynchronize",
or --force, which is short for both. Like Resume-VMReplication -Resynchronize.`,
		Example: `  vmreplica resync web01 --wait
  vmreplica resync web01 --wait -o json
  vmreplica resync web01 --force --wait
  vmreplica resync web01 --at +2h`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.starts(vmreplicav1.ResyncKind_RESYNC_KIND_RESYNC, flags),
	}
	flags.addAt(command)
	flags.addWait(command)
	command.Flags().BoolVar(&flags.force, "force", false, "resynchronize although it is not needed, as suspend and resume\n--resynchronize do, or where the primary may be the older or wrong disk")
	command.Flags().BoolVar(&flags.restart, "restart", false, "discard the position and content of an unfinished resync, and begin anew")
	return command
}

func (v *invocation) verify() *cobra.Command {
	flags := &startFlags{}
	command := &cobra.Command{
		Use:   "verify VM",
		Short: "Compare and prove a VM's replica, and write nothing.",
		Long: `Compare and prove a VM's replica, and write nothing.

Use it to know that the copy is right, as before a planned failover or once a month. Every block of both sides is
read, so the machine must be off. With --wait the command ends with code 7 when a difference was found; "resync" brings the replica back in step.`,
		Example: `  vmreplica verify web01 --wait`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.starts(vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY, flags),
	}
	flags.addWait(command)
	return command
}

// starts starts a resync of one kind and, when asked to, awaits it.
func (v *invocation) starts(kind vmreplicav1.ResyncKind, flags *startFlags) func(*cobra.Command, []string) error {
	return v.ofVM(func(ctx context.Context, vm string) error {
		request := &vmreplicav1.StartResyncRequest{
			Vm: vm, Kind: kind, Force: flags.force, Restart: flags.restart, RequestId: v.requestID,
		}
		at, err := v.startTime(flags.at)
		if err != nil {
			return err
		}
		request.StartTime = at
		begun, err := v.resyncService().StartResync(ctx, request)
		switch {
		case err != nil && ctx.Err() != nil:
			return interrupted{"Interrupted: whether the agent began is not known.\n  Look with: " + v.typed("resyncs %s", vm)}
		case err != nil:
			return err
		case flags.wait:
			return v.await(ctx, begun)
		}
		return v.printer.Message(begun, func(page *render.Page) {
			page.Line("%s", v.beginning(begun))
			page.Line("Follow it with: %s", v.typed("get %s --watch", vm))
		})
	})
}

// startTime reads --at; nil means now.
func (v *invocation) startTime(text string) (*timestamppb.Timestamp, error) {
	at, err := parseWhen(text, v.Now())
	if err != nil || at.IsZero() {
		return nil, err
	}
	return timestamppb.New(at), nil
}

// beginning says in a sentence when a resync begins.
func (v *invocation) beginning(r *vmreplicav1.Resync) string {
	now := v.Now()
	what := "The " + render.KindWord(r.GetKind()) + " " + r.GetId() + " of the VM " + r.GetVm()
	if at := r.GetStartTime(); at != nil && at.AsTime().After(now) {
		return what + " begins at " + render.Moment(at.AsTime(), now) + " (" + render.Distance(at.AsTime(), now) + ")."
	}
	return what + " has begun."
}
