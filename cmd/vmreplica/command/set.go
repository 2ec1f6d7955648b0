package command

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// setFlags are what is changed of a replication.
type setFlags struct {
	settings         settingFlags
	labels, unlabels []string
	replica          string
}

func (v *invocation) set() *cobra.Command {
	flags := &setFlags{}
	command := &cobra.Command{
		Use:   "set VM",
		Short: "Change the settings of a VM's replication.",
		Long: `Change the settings of a VM's replication.

Use it to send more or less often, to keep other recovery points, to say when a required resync starts by itself, when
the replica has a new address, or to label a VM for your own tools. It holds at once, without a restart; several are
changed together or not at all, and what is not named stays. Like Set-VMReplication.`,
		Example: `  vmreplica set web01 --interval 30s --recovery-points 4
  vmreplica set web01 --auto-resync window --auto-resync-window 22:00-05:00 --auto-resync-time-zone Europe/Berlin
  vmreplica set web01 --hrl-limit none --qmp-socket /run/web01.qmp
  vmreplica set web01 --replica replica2.example:7443
  vmreplica set web01 --label site=berlin --remove-label tier`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error { return v.runSet(ctx, vm, flags) }),
	}
	command.Flags().StringVar(&flags.replica, "replica", "", "where the replica is from now on, `HOST:PORT`")
	command.Flags().StringArrayVar(&flags.labels, "label", nil, "set a label, `KEY=VALUE`; repeatable")
	command.Flags().StringArrayVar(&flags.unlabels, "remove-label", nil, "remove the label `KEY`; repeatable")
	flags.settings.add(command)
	command.MarkFlagsOneRequired(append(slices.Clone(settingNames), "replica", "label", "remove-label")...)
	return command
}

func (v *invocation) runSet(ctx context.Context, vm string, flags *setFlags) error {
	labels, err := parseLabels(flags.labels)
	if err != nil {
		return err
	}
	if _, err := flags.settings.onto(&vmreplicav1.ReplicationSpec{}, nil); err != nil {
		return err
	}
	present, err := v.replications().GetReplication(ctx, &vmreplicav1.GetReplicationRequest{Name: vm})
	if err != nil {
		return err
	}
	changed := &vmreplicav1.Replication{Name: vm, Etag: present.GetEtag(), Spec: &vmreplicav1.ReplicationSpec{}}
	mask := &fieldmaskpb.FieldMask{}
	if flags.replica != "" {
		changed.Spec.ReplicaAddress = flags.replica
		mask.Paths = append(mask.Paths, "spec.replica_address")
	}
	settings, err := flags.settings.onto(changed.Spec, present.GetSpec().GetAutoResync())
	if err != nil {
		return err
	}
	mask.Paths = append(mask.Paths, settings...)
	if len(flags.labels)+len(flags.unlabels) > 0 {
		changed.Labels = merged(present.GetLabels(), labels, flags.unlabels)
		mask.Paths = append(mask.Paths, "labels")
	}
	r, err := v.replications().UpdateReplication(ctx, &vmreplicav1.UpdateReplicationRequest{
		Replication: changed, UpdateMask: mask, RequestId: v.requestID,
	})
	if err != nil {
		return err
	}
	return v.printer.Message(r, func(page *render.Page) {
		page.Line("Changed for the VM %s: %s.", vm, strings.Join(mask.GetPaths(), ", "))
	})
}

// merged is the present labels with some set and others removed.
func merged(present, set map[string]string, remove []string) map[string]string {
	labels := map[string]string{}
	for key, value := range present {
		labels[key] = value
	}
	for key, value := range set {
		labels[key] = value
	}
	for _, key := range remove {
		delete(labels, key)
	}
	return labels
}

func (v *invocation) resetStatistics() *cobra.Command {
	return &cobra.Command{
		Use:   "reset-statistics VM",
		Short: "Set the counters of a VM's replication to zero.",
		Long: `Set the counters of a VM's replication to zero.

Use it to begin a new interval of observation, as after a fault was mended. Like Reset-VMReplicationStatistics.`,
		Example: `  vmreplica reset-statistics web01`,
		GroupID: groupReplicate, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error {
			request := &vmreplicav1.ResetStatisticsRequest{Name: vm, RequestId: v.requestID}
			r, err := v.replications().ResetStatistics(ctx, request)
			if err != nil {
				return err
			}
			return v.printer.Message(r, func(page *render.Page) {
				page.Line("The counters of the VM %s are zero.", vm)
			})
		}),
	}
}
