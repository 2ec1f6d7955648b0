package command

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// enableFlags are what is asked of a new replication.
type enableFlags struct {
	disks, labels       []string
	formats             diskDefaults
	settings            settingFlags
	replica             string
	useExisting, dryRun bool
}

func (v *invocation) enable() *cobra.Command {
	flags := &enableFlags{}
	command := &cobra.Command{
		Use:   "enable VM",
		Short: "Begin to replicate a VM: name its disks and its replica.",
		Long: `Begin to replicate a VM: name its disks and its replica.

Use it once for each VM, on its primary, after the replica has authorized this primary. Everything is checked and
the replica is prepared; nothing is copied yet. Repeated with the same arguments it changes nothing.
Formats are stated, never guessed: raw unless --format says otherwise. The replica's base has the disk's format unless
--replica-format says otherwise; what is received lies in a differencing disk until it is merged: .avhd on VHD, .avhdx
on VHDX, a qcow2 overlay on raw and qcow2, or on any base with --differencing qcow2.
The changes of a machine that runs are sent each --interval, if its disks are attached through the agent: see
"attach-info". All settings below can be changed later with "set". Like Enable-VMReplication.`,
		Example: `  vmreplica enable web01 --disk /images/web01.img --replica replica.example:7443 --interval 30s --recovery-points 4
  vmreplica enable db01 --disk /images/db01/root.img --disk /dev/vg0/db01,id=data --replica replica.example:7443
  vmreplica enable db01 --disk /images/db01.img --replica replica.example:7443 --use-existing --dry-run
  vmreplica enable app01 --disk /images/app01.vhdx --format vhdx --replica replica.example:7443
  vmreplica enable app02 --disk /images/app02.qcow2,format=qcow2 --replica-format raw --replica replica.example:7443`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error { return v.runEnable(ctx, vm, flags) }),
	}
	set := command.Flags()
	set.StringArrayVar(&flags.disks, "disk", nil, "a disk, `PATH[,id=NAME][,format=F][,replica-format=F]`; the id is the file's name unless given; repeatable")
	set.StringVar(&flags.formats.format, "format", "", "`FORMAT` of the disks that state none: "+formatNames+" (default raw)")
	set.StringVar(&flags.formats.replicaFormat, "replica-format", "", "`FORMAT` of the replica's bases (default: the disk's)")
	set.StringVar(&flags.formats.differencing, "differencing", "", "qcow2: `FORMAT` of the replica's differencing disks over any base (default: the base's own)")
	set.StringVar(&flags.replica, "replica", "", "the replica's address, `HOST:PORT`; HOST must be in its certificate")
	set.BoolVar(&flags.useExisting, "use-existing", false, "adopt the files that lie at the replica's storage; everything is compared")
	set.StringArrayVar(&flags.labels, "label", nil, "a label of your own, `KEY=VALUE`; repeatable")
	set.BoolVar(&flags.dryRun, "dry-run", false, "check everything that can be checked and change nothing")
	flags.settings.add(command)
	complete(command, "format", diskFormatNames()...)
	complete(command, "replica-format", diskFormatNames()...)
	complete(command, "differencing", string(replication.DifferencingQCOW2))
	// They fail only for flags that do not exist.
	_ = command.MarkFlagRequired("disk")
	_ = command.MarkFlagRequired("replica")
	return command
}

func (v *invocation) runEnable(ctx context.Context, vm string, flags *enableFlags) error {
	asked, err := flags.replication(vm)
	if err != nil {
		return err
	}
	before, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	after, err := v.replications().CreateReplication(ctx, &vmreplicav1.CreateReplicationRequest{
		Replication: asked, ValidateOnly: flags.dryRun, RequestId: v.requestID,
	})
	if err != nil {
		return err
	}
	return v.printer.Message(after, func(page *render.Page) {
		switch {
		case flags.dryRun && before == nil:
			page.Line("Everything that can be checked is good; nothing was changed.")
			return
		case same(before, after):
			page.Line("unchanged: the VM %s is replicated to %s already.", vm, after.GetSpec().GetReplicaAddress())
		default:
			page.Line("Replication of the VM %s to %s is enabled; nothing is copied yet.", vm, after.GetSpec().GetReplicaAddress())
		}
		v.nextAfterEnable(page, after)
	})
}

func (f *enableFlags) replication(vm string) (*vmreplicav1.Replication, error) {
	disks, err := parseDisks(f.disks, f.formats)
	if err != nil {
		return nil, err
	}
	labels, err := parseLabels(f.labels)
	if err != nil {
		return nil, err
	}
	spec := &vmreplicav1.ReplicationSpec{Disks: disks, ReplicaAddress: f.replica, UseExisting: f.useExisting}
	if _, err := f.settings.onto(spec, nil); err != nil {
		return nil, err
	}
	return &vmreplicav1.Replication{Name: vm, Labels: labels, Spec: spec}, nil
}

// same says whether enabling found everything as it was. An earlier, unfinished enabling is in the state Error.
func same(before, after *vmreplicav1.Replication) bool {
	failed := vmreplicav1.ReplicationState_REPLICATION_STATE_ERROR
	return before != nil && before.GetUid() == after.GetUid() && before.GetEtag() == after.GetEtag() &&
		(before.GetStatus().GetState() != failed || after.GetStatus().GetState() == failed)
}

// nextAfterEnable says what is typed next. A machine that runs is attached first, so that nothing it writes after the
// first copy has begun goes unseen.
func (v *invocation) nextAfterEnable(page *render.Page, r *vmreplicav1.Replication) {
	ready := r.GetStatus().GetState() == vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION
	if !ready || r.GetStatus().GetAttached() || !attachable(r.GetSpec()) {
		page.Line("Next: %s", v.next(r))
		return
	}
	page.Line("Next: %s", v.typed("attach-info %s", r.GetName()))
	page.Line("      for a machine that runs: start it with these lines, and its writes are tracked; one that is off needs none")
	page.Line("Then: %s", v.next(r))
}

// attachable says whether the agent can serve every disk to a machine.
func attachable(spec *vmreplicav1.ReplicationSpec) bool {
	for _, disk := range spec.GetDisks() {
		if disk.GetFormat() != vmreplicav1.DiskFormat_DISK_FORMAT_RAW {
			return false
		}
	}
	return len(spec.GetDisks()) > 0
}

// next is the command that a VM's state asks for.
func (v *invocation) next(r *vmreplicav1.Replication) string {
	switch r.GetStatus().GetState() {
	case vmreplicav1.ReplicationState_REPLICATION_STATE_READY_FOR_INITIAL_REPLICATION:
		return v.typed("start-initial %s --wait", r.GetName())
	case vmreplicav1.ReplicationState_REPLICATION_STATE_WAITING_FOR_START_RESYNCHRONIZE:
		return v.typed("resync %s --wait", r.GetName())
	case vmreplicav1.ReplicationState_REPLICATION_STATE_SUSPENDED,
		vmreplicav1.ReplicationState_REPLICATION_STATE_RESYNCHRONIZE_SUSPENDED:
		return v.typed("resume %s", r.GetName())
	default:
		return v.typed("describe %s", r.GetName())
	}
}
