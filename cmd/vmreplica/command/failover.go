package command

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// failoverFlags say to what is failed over, and whether it is asked for confirmation.
type failoverFlags struct {
	point       string
	yes, dryRun bool
}

func (v *invocation) failovers() vmreplicav1.FailoverServiceClient {
	return vmreplicav1.NewFailoverServiceClient(v.agent)
}

func (v *invocation) failover() *cobra.Command {
	flags := &failoverFlags{}
	command := &cobra.Command{
		Use:   "failover VM",
		Short: "Make the replica's disks the machine's: the primary is lost.",
		Long: `Make the replica's disks the machine's: the primary is lost.

Use it on the replica on the day it is needed. The primary is refused from then on, what has not committed and all
later recovery points are discarded, what has committed is merged, and the disks are yours: the paths and QEMU's
arguments are printed when they are ready. It cannot be undone. What the primary had not sent yet is lost; end the
machine there first if it still runs. Asks for confirmation on a terminal, and needs --yes elsewhere. Ctrl-C ends the
waiting, not the failover; repeated, it waits again. Like Start-VMFailover and Complete-VMFailover.`,
		Example: `  vmreplica --server replica.example:7443 failover web01 --dry-run
  vmreplica --server replica.example:7443 failover web01
  vmreplica --server replica.example:7443 failover web01 --point 4f1c0e8a5b7d --yes -o json`,
		GroupID: groupRecover, Args: cobra.ExactArgs(1),
		RunE: v.ofVM(func(ctx context.Context, vm string) error { return v.runFailover(ctx, vm, flags) }),
	}
	command.Flags().StringVar(&flags.point, "point", "", "the recovery point, by its `ID` or an unambiguous beginning (default the newest content)")
	command.Flags().BoolVar(&flags.yes, "yes", false, "do not ask")
	command.Flags().BoolVar(&flags.dryRun, "dry-run", false, "say what would be done and discarded, and do nothing")
	command.MarkFlagsMutuallyExclusive("yes", "dry-run")
	return command
}

func (v *invocation) runFailover(ctx context.Context, vm string, flags *failoverFlags) error {
	if !flags.yes && !flags.dryRun && !v.Interactive {
		return misused("a failover is confirmed on a terminal, and there is none").
			Try("See what it would discard with --dry-run, then give --yes.")
	}
	request := &vmreplicav1.StartFailoverRequest{Vm: vm, RecoveryPoint: flags.point, RequestId: v.requestID}
	if !flags.yes {
		planned, err := v.plan(ctx, request)
		switch {
		case err != nil:
			return err
		case flags.dryRun:
			return v.printer.FailoverPlan(planned)
		}
		if err := v.confirm(ctx, planned); err != nil {
			return err
		}
		// A point is the one that was confirmed; the newest content stays the newest, though a cycle came meanwhile.
		if flags.point != "" {
			request.RecoveryPoint = planned.GetRecoveryPoint()
		}
	}
	begun, err := v.failovers().StartFailover(ctx, request)
	switch {
	case err != nil && ctx.Err() != nil:
		return interrupted{"Interrupted: whether the failover began is not known.\n  Look with: " + v.typed("describe %s", vm)}
	case err != nil:
		return err
	}
	last, err := v.awaitFailover(ctx, begun)
	if ctx.Err() != nil && last.GetEndTime() == nil {
		return interrupted{fmt.Sprintf("Interrupted: the failover of the VM %s goes on.\n  Wait for it:  %s", vm,
			v.typed("failover %s --point %s --yes", vm, last.GetRecoveryPoint()))}
	}
	if err != nil {
		return err
	}
	return v.printer.Failover(last)
}

// plan asks what a failover would do. The request id is left away: the failover itself is another thing.
func (v *invocation) plan(ctx context.Context, request *vmreplicav1.StartFailoverRequest) (*vmreplicav1.Failover, error) {
	return v.failovers().StartFailover(ctx, &vmreplicav1.StartFailoverRequest{
		Vm: request.GetVm(), RecoveryPoint: request.GetRecoveryPoint(), ValidateOnly: true, RequestId: v.requestID + "-plan",
	})
}

// confirm shows what a failover would do and asks whether it is to be done.
func (v *invocation) confirm(ctx context.Context, planned *vmreplicav1.Failover) error {
	shown := render.Printer{Out: v.Err, Format: render.Table, Now: v.Now}
	if err := shown.FailoverPlan(planned); err != nil {
		return err
	}
	fmt.Fprint(v.Err, "Fail over? Only yes is taken for it: ")
	answer := make(chan string, 1)
	// Reading from a terminal cannot be ended; when the waiting ends, so does the program.
	go func() {
		line, _ := bufio.NewReader(v.In).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case word := <-answer:
		if word != "yes" {
			return failure.New(failure.Cancelled, failure.ReasonCancelled, "it was not confirmed, and nothing was changed").
				On(planned.GetVm(), "")
		}
		return nil
	}
}

// awaitFailover asks how a failover stands until its disks can be used, over lost connections and restarts of the
// agent, and answers its newest state.
func (v *invocation) awaitFailover(ctx context.Context, begun *vmreplicav1.Failover) (*vmreplicav1.Failover, error) {
	copying := render.NewCopying(v.Err, render.IsTerminal(v.Err), v.Now)
	defer copying.Close()
	retry := v.reconnects(copying, "the failover goes on")
	last := begun
	for last.GetEndTime() == nil {
		copying.Show("merging", last.GetMergedBytes(), last.GetMergeTotalBytes())
		if err := sleep(ctx, failoverTick); err != nil {
			return last, err
		}
		newest, err := v.failovers().GetFailover(ctx, &vmreplicav1.GetFailoverRequest{Vm: last.GetVm()})
		if err == nil {
			last = newest
			retry.answered()
			continue
		}
		if err := retry.after(ctx, err); err != nil {
			return last, failedFailover(ctx, err)
		}
	}
	return last, nil
}

// failoverTick is how often a failover is asked for.
const failoverTick = 500 * time.Millisecond

// failedFailover is an answer that says that the disks will not be ready by themselves.
func failedFailover(ctx context.Context, err error) error {
	if ctx.Err() != nil || unanswered(err) {
		return err
	}
	return awaited{failure.Find(api.FromCall(ctx, err))}
}
