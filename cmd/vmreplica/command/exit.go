package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
)

// Exit codes. The check verb has monitoring's instead: 0 to 3.
const (
	ExitDone          = 0
	ExitFailed        = 1
	ExitUsage         = 2
	ExitNotFound      = 3
	ExitPrecondition  = 4
	ExitUnreachable   = 5
	ExitPermission    = 6
	ExitAwaitedFailed = 7
	ExitInterrupted   = 130
)

// awaited is the failure of work that was waited for.
type awaited struct{ failure *failure.Error }

func (e awaited) Error() string { return e.failure.Error() }
func (e awaited) Unwrap() error { return e.failure }

// interrupted says what goes on although the program ends.
type interrupted struct{ goesOn string }

func (e interrupted) Error() string { return e.goesOn }

// exit is an end whose words are written already.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("ended with code %d", e.code) }

// codeOf is the exit code of a class of failure.
func codeOf(class failure.Class) int {
	switch class {
	case failure.Invalid:
		return ExitUsage
	case failure.NotFound:
		return ExitNotFound
	case failure.Exists, failure.Precondition, failure.Conflict, failure.OutOfRange:
		return ExitPrecondition
	case failure.Unreachable:
		return ExitUnreachable
	case failure.Denied:
		return ExitPermission
	default:
		return ExitFailed
	}
}

// finish says how the program ended and answers its code.
func (v *invocation) finish(ctx context.Context, ran *cobra.Command, err error) int {
	var done exit
	var goesOn interrupted
	var failed awaited
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &done):
		return done.code
	case ctx.Err() != nil:
		if errors.As(err, &goesOn) && goesOn.goesOn != "" {
			fmt.Fprintln(v.Err, goesOn.goesOn)
		}
		return ExitInterrupted
	case !v.given && ran.Name() == "check" && ran.Parent() == ran.Root():
		line, code := render.MonitorFailure(misused("%w", err))
		fmt.Fprintln(v.Out, line)
		return code
	case !v.given:
		v.usage(ran, err)
		return ExitUsage
	}
	found := failure.Find(v.explained(ctx, err))
	v.complain(found)
	if errors.As(err, &failed) {
		return ExitAwaitedFailed
	}
	return codeOf(found.Class)
}

// usage says what is wrong with the arguments.
func (v *invocation) usage(ran *cobra.Command, err error) {
	found := failure.Find(err)
	fmt.Fprintf(v.Err, "error: %s\n", render.Clean(found.Message))
	if found.Remedy != "" {
		fmt.Fprintf(v.Err, "  %s\n", render.Clean(found.Remedy))
	}
	fmt.Fprintf(v.Err, "  Help: %s --help\n", ran.CommandPath())
}

// complain says what happened to which VM and disk, what to do next, and which agent said so.
func (v *invocation) complain(found *failure.Error) {
	bare := *found
	bare.Remedy = ""
	fmt.Fprintf(v.Err, "error: %s (%s)\n", render.Clean(bare.Error()), found.Reason)
	if found.Remedy != "" {
		fmt.Fprintf(v.Err, "  %s\n", render.Clean(found.Remedy))
	}
	if v.agent != nil {
		if answered := v.agent.answered(); answered != "" {
			fmt.Fprintf(v.Err, "  Asked: %s\n", answered)
		}
	}
}

// explained is err as a failure, with the reason found out where no agent answered.
func (v *invocation) explained(ctx context.Context, err error) error {
	if _, isStatus := status.FromError(err); !isStatus {
		return err
	}
	decided := api.FromStatus(err)
	if v.agent == nil || !unanswered(err) {
		return decided
	}
	return v.agent.diagnose(ctx, failure.Find(decided))
}
