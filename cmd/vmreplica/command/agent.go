package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

func (v *invocation) agentService() vmreplicav1.AgentServiceClient {
	return vmreplicav1.NewAgentServiceClient(v.agent)
}

func (v *invocation) agentVerb() *cobra.Command {
	command := &cobra.Command{
		Use:   "agent",
		Short: "Look at the agent itself, and change its settings.",
		Long: `Look at the agent itself, and change its settings.

Use "get" to see which agent answers, its version and when its certificate ends; use "set" to limit what it sends.`,
		Example: `  vmreplica agent get
  vmreplica agent set --bandwidth-limit 50MiB/s`,
		GroupID: groupSetUp, Args: cobra.NoArgs, RunE: showHelp,
	}
	command.AddCommand(v.agentGet(), v.agentSet())
	return command
}

func (v *invocation) agentGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get",
		Short: "Show the agent: identity, version, certificate and settings.",
		Long: `Show the agent: identity, version, certificate and settings.

Use it to see which agent answers at --server, and what its platform lacks.`,
		Example: `  vmreplica agent get
  vmreplica --server replica.example:7443 agent get -o json`,
		Args: cobra.NoArgs,
		RunE: v.remote(func(ctx context.Context, _ []string) error {
			agent, err := v.agentService().GetAgent(ctx, &vmreplicav1.GetAgentRequest{})
			if err != nil {
				return err
			}
			return v.printer.Agent(agent)
		}),
	}
}

func (v *invocation) agentSet() *cobra.Command {
	var bandwidth string
	var transfers int32
	command := &cobra.Command{
		Use:   "set",
		Short: "Change settings of the agent, at once and for good.",
		Long: `Change settings of the agent, at once and for good.

Use it to leave room on the link, or to let more VMs transfer at a time. Running transfers follow at once.`,
		Example: `  vmreplica agent set --bandwidth-limit 50MiB/s
  vmreplica agent set --bandwidth-limit none --max-transfers 3`,
		Args: cobra.NoArgs,
		RunE: v.remote(func(ctx context.Context, _ []string) error { return v.runAgentSet(ctx, bandwidth, transfers) }),
	}
	command.Flags().StringVar(&bandwidth, "bandwidth-limit", "", "what all transfers together may send, `RATE` as in 50MiB/s; none for no limit")
	command.Flags().Int32Var(&transfers, "max-transfers", 0, "how many VMs may transfer at a time, `N` from 1 to 64")
	command.MarkFlagsOneRequired("bandwidth-limit", "max-transfers")
	return command
}

func (v *invocation) runAgentSet(ctx context.Context, bandwidth string, transfers int32) error {
	request := &vmreplicav1.UpdateAgentRequest{
		Settings: &vmreplicav1.AgentSettings{}, UpdateMask: &fieldmaskpb.FieldMask{}, RequestId: v.requestID,
	}
	if bandwidth != "" {
		rate, err := parseRate(bandwidth)
		if err != nil {
			return err
		}
		request.Settings.BandwidthLimitBytesPerSecond = rate
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "bandwidth_limit_bytes_per_second")
	}
	if transfers != 0 {
		request.Settings.MaxTransfers = transfers
		request.UpdateMask.Paths = append(request.UpdateMask.Paths, "max_transfers")
	}
	if len(request.UpdateMask.Paths) == 0 {
		return misused("nothing is to be changed").Try("Give a limit, or 1 to 64 transfers.")
	}
	agent, err := v.agentService().UpdateAgent(ctx, request)
	if err != nil {
		return err
	}
	return v.printer.Agent(agent)
}

func (v *invocation) testConnection() *cobra.Command {
	return &cobra.Command{
		Use:   "test-connection HOST:PORT",
		Short: "Try the way from a primary to a replica, step by step.",
		Long: `Try the way from a primary to a replica, step by step.

Use it before "enable", or when a replica cannot be reached: the agent at --server tries name, connection,
certificates, role, authorization, version, space and clock, and says where it ends and what to do.
Like Test-VMReplicationConnection.`,
		Example: `  vmreplica test-connection replica.example:7443`,
		GroupID: groupSetUp, Args: cobra.ExactArgs(1),
		RunE: v.remote(func(ctx context.Context, args []string) error {
			answer, err := v.agentService().TestConnection(ctx, &vmreplicav1.TestConnectionRequest{Address: args[0]})
			if err != nil {
				return err
			}
			if err := v.printer.Connection(v.agent.answered(), args[0], answer); err != nil {
				return err
			}
			return failedCheck(args[0], answer.GetChecks())
		}),
	}
}

// checkClasses are the classes of the checks whose failure is not a precondition.
var checkClasses = map[string]failure.Class{
	"dns": failure.Unreachable, "tcp": failure.Unreachable,
	"tls": failure.Denied, "role": failure.Denied, "entry": failure.Denied,
}

// failedCheck is the first check that did not pass, as a failure; nil when all did.
func failedCheck(address string, checks []*vmreplicav1.ConnectionCheck) error {
	for _, check := range checks {
		if check.GetPassed() {
			continue
		}
		class, known := checkClasses[check.GetName()]
		if !known {
			class = failure.Precondition
		}
		return failure.New(class, "CHECK_"+strings.ToUpper(check.GetName()), "the way to the replica at %s ends at %s: %s",
			address, check.GetName(), render.Clean(check.GetMessage())).Try("%s", check.GetRemedy())
	}
	return nil
}
