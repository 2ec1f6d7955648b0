package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"vmreplica/internal/failure"
	"vmreplica/transport"
)

// diagnoseTimeout bounds the search for why no agent answered.
const diagnoseTimeout = 5 * time.Second

// diagnose goes the way to the agent step by step and says where it ends.
func (l *link) diagnose(ctx context.Context, found *failure.Error) *failure.Error {
	ctx, cancel := context.WithTimeout(ctx, diagnoseTimeout)
	defer cancel()
	_, err := transport.Probe(ctx, l.address, l.config)
	var ended *transport.ProbeError
	if !errors.As(err, &ended) {
		return failure.New(failure.Unreachable, reasonAgentUnreachable, "the agent at %s did not answer: %s", l.address,
			found.Message).Try("It can be reached now: repeat the command.")
	}
	class, reason := failure.Unreachable, reasonAgentUnreachable
	remedy := fmt.Sprintf("Start the agent there, or name another with --server HOST:PORT or %s.", serverVariable)
	switch ended.Step {
	case transport.StepDNS:
		remedy = fmt.Sprintf("Check the host's name in --server or %s.", serverVariable)
	case transport.StepTLS, transport.StepRole:
		remedy = "Both certificates must come from one authority and be in force, the agent's must name the host that " +
			"is dialled, and the port must be an agent's."
		if ctx.Err() == nil && !closed(ended) {
			class, reason = failure.Denied, failure.ReasonNotAuthorized
		}
	}
	return failure.New(class, reason, "the agent at %s cannot be reached: %w", l.address, ended).Try("%s", remedy)
}

// reasonAgentUnreachable is ours alone: no agent says it.
const reasonAgentUnreachable = "AGENT_UNREACHABLE"

// closed says whether a connection was cut rather than refused.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}
