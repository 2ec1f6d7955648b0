package command

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"vmreplica/cmd/vmreplica/render"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// authorizeFlags are what an entry allows.
type authorizeFlags struct {
	storage, trustGroup, quota string
	devices                    []string
	update                     bool
}

func (v *invocation) authorizationService() vmreplicav1.AuthorizationServiceClient {
	return vmreplicav1.NewAuthorizationServiceClient(v.agent)
}

func (v *invocation) authorize() *cobra.Command {
	flags := &authorizeFlags{}
	command := &cobra.Command{
		Use:   "authorize NAME|PATTERN",
		Short: "Let a primary keep its replicas on this replica.",
		Long: `Let a primary keep its replicas on this replica.

Use it on the replica, before "enable" on the primary. A bare NAME means the primary of that name in the replica's
own trust domain; the name of a PATTERN may be or end in one '*'. Disks land at STORAGE/SUBDIR/VM/DISK. To change
the quota or the devices of an entry repeat it with --update. A device that is mapped to a disk is given to it: the first
copy writes over what it holds, without --use-existing. Like New-VMReplicationAuthorizationEntry.`,
		Example: `  vmreplica --server replica.example:7443 authorize host1
  vmreplica --server replica.example:7443 authorize 'berlin-*' --storage berlin --quota 2TiB
  vmreplica --server replica.example:7443 authorize host1 --update --quota 4TiB`,
		GroupID: groupSetUp, Args: cobra.ExactArgs(1),
		RunE: v.remote(func(ctx context.Context, args []string) error { return v.runAuthorize(ctx, args[0], flags) }),
	}
	set := command.Flags()
	set.StringVar(&flags.storage, "storage", "", "`SUBDIR` below the replica's storage (default the primary's name)")
	set.StringVar(&flags.quota, "quota", "", "`SIZE` that all disks of the entry may allocate, as in 2TiB (default none)")
	set.StringVar(&flags.trustGroup, "trust-group", "", "`GROUP` of primaries between which a VM may move")
	set.StringArrayVar(&flags.devices, "device", nil, "a device that stands for a disk, `VM/DISK=/dev/DEVICE`; repeatable")
	set.BoolVar(&flags.update, "update", false, "change the quota or the devices of an entry that exists")
	command.MarkFlagsMutuallyExclusive("update", "storage")
	command.MarkFlagsMutuallyExclusive("update", "trust-group")
	return command
}

func (v *invocation) runAuthorize(ctx context.Context, pattern string, flags *authorizeFlags) error {
	entry, mask, err := flags.entry(pattern)
	if err != nil {
		return err
	}
	if !flags.update {
		entry, err = v.authorizationService().CreateAuthorization(ctx,
			&vmreplicav1.CreateAuthorizationRequest{Authorization: entry, RequestId: v.requestID})
	} else if len(mask.GetPaths()) == 0 {
		err = misused("--update changes nothing").Try("Give --quota or --device as well.")
	} else {
		entry, err = v.authorizationService().UpdateAuthorization(ctx,
			&vmreplicav1.UpdateAuthorizationRequest{Authorization: entry, UpdateMask: mask, RequestId: v.requestID})
	}
	if err != nil {
		return err
	}
	return v.printer.Authorization(entry)
}

// entry is what is asked for, and which of it an update changes.
func (f *authorizeFlags) entry(pattern string) (*vmreplicav1.Authorization, *fieldmaskpb.FieldMask, error) {
	entry := &vmreplicav1.Authorization{Pattern: pattern, StorageSubdirectory: f.storage, TrustGroup: f.trustGroup}
	mask := &fieldmaskpb.FieldMask{}
	if f.quota != "" {
		quota, err := parseSize(f.quota)
		if err != nil {
			return nil, nil, err
		}
		entry.QuotaBytes, mask.Paths = quota, append(mask.Paths, "quota_bytes")
	}
	for _, text := range f.devices {
		device, err := parseDevice(text)
		if err != nil {
			return nil, nil, err
		}
		entry.Devices = append(entry.Devices, device)
	}
	if len(f.devices) > 0 {
		mask.Paths = append(mask.Paths, "devices")
	}
	return entry, mask, nil
}

func (v *invocation) authorizations() *cobra.Command {
	return &cobra.Command{
		Use:   "authorizations",
		Short: "List the primaries that a replica accepts.",
		Long: `List the primaries that a replica accepts.

Use it on the replica to see which primaries may store there, where, and how much of their quota they use.
Like Get-VMReplicationAuthorizationEntry.`,
		Example: `  vmreplica --server replica.example:7443 authorizations -o wide`,
		GroupID: groupSetUp, Args: cobra.NoArgs,
		RunE: v.remote(func(ctx context.Context, _ []string) error {
			all := &vmreplicav1.ListAuthorizationsResponse{}
			request := &vmreplicav1.ListAuthorizationsRequest{PageSize: pageSize}
			for {
				page, err := v.authorizationService().ListAuthorizations(ctx, request)
				if err != nil {
					return err
				}
				all.Authorizations = append(all.Authorizations, page.GetAuthorizations()...)
				if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
					return v.printer.Authorizations(all)
				}
			}
		}),
	}
}

func (v *invocation) deauthorize() *cobra.Command {
	return &cobra.Command{
		Use:   "deauthorize NAME|PATTERN",
		Short: "Stop accepting a primary on this replica.",
		Long: `Stop accepting a primary on this replica.

Use it on the replica when a primary must not store there any more. Its open transfers end within five seconds; the
disks that it has stored stay. Like Remove-VMReplicationAuthorizationEntry.`,
		Example: `  vmreplica --server replica.example:7443 deauthorize host1`,
		GroupID: groupSetUp, Args: cobra.ExactArgs(1),
		RunE: v.remote(func(ctx context.Context, args []string) error {
			request := &vmreplicav1.DeleteAuthorizationRequest{Pattern: args[0], RequestId: v.requestID}
			removed, err := v.authorizationService().DeleteAuthorization(ctx, request)
			if err != nil {
				return err
			}
			return v.printer.Message(removed, func(page *render.Page) {
				page.Line("%s is not accepted any more; the disks that it has stored stay.", args[0])
			})
		}),
	}
}
