package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// How soon and how often a lost watch is begun again.
const (
	watchBase = 500 * time.Millisecond
	watchMost = 10 * time.Second
	// watchTick is how often progress hears that time has passed.
	watchTick = time.Second
)

// await shows a resync until it has ended and writes its result.
func (v *invocation) await(ctx context.Context, begun *vmreplicav1.Resync) error {
	progress := render.NewProgress(v.Err, render.IsTerminal(v.Err), v.Now)
	last, err := v.follow(ctx, begun, progress)
	progress.Close()
	if ctx.Err() != nil && !render.Ended(last) {
		return interrupted{fmt.Sprintf("Interrupted: the %s of the VM %s goes on.\n  Follow it:  %s\n  End it:     %s",
			render.KindWord(last.GetKind()), last.GetVm(),
			v.typed("get %s --watch", last.GetVm()), v.typed("cancel-resync %s", last.GetVm()))}
	}
	if err != nil {
		return err
	}
	if err := v.printer.Resync(last); err != nil {
		return err
	}
	return v.verdict(last)
}

// verdict is how the awaited resync ended.
func (v *invocation) verdict(r *vmreplicav1.Resync) error {
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_DONE {
		return nil
	}
	reason := r.GetReason()
	if reason == "" {
		reason = failure.ReasonInternal
	}
	ended := failure.New(failure.Internal, reason, "the %s ended as %s: %s", render.KindWord(r.GetKind()),
		render.Word(r.GetState()), r.GetResult()).On(r.GetVm(), "")
	switch {
	case r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_CANCELLED:
		ended = ended.Try("Begin anew with: %s", v.typed("resync %s --wait", r.GetVm()))
	case r.GetKind() == vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY:
		ended = ended.Try("Bring the replica back in step with: %s", v.typed("resync %s --wait", r.GetVm()))
	default:
		ended = ended.Try("What led to it: %s", v.typed("events %s", r.GetVm()))
	}
	return awaited{ended}
}

// follow watches a resync to its end, over lost connections and restarts of the agent, and answers its newest state.
func (v *invocation) follow(
	ctx context.Context, begun *vmreplicav1.Resync, progress render.Progress,
) (*vmreplicav1.Resync, error) {
	last := begun
	progress.Show(last)
	retry := v.reconnects(progress, "the "+render.KindWord(begun.GetKind())+" goes on")
	for !render.Ended(last) {
		err := v.watchResync(ctx, last, func(newest *vmreplicav1.Resync, isNew bool) {
			if last = newest; isNew {
				retry.answered()
			}
			progress.Show(newest)
		})
		if render.Ended(last) {
			break
		}
		if err := retry.after(ctx, err); err != nil {
			return last, err
		}
	}
	return last, nil
}

// watchResync shows every state that one watch sends, and the last one again while nothing comes.
func (v *invocation) watchResync(
	ctx context.Context, last *vmreplicav1.Resync, show func(r *vmreplicav1.Resync, isNew bool),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v.resyncService().WatchResync(ctx, &vmreplicav1.WatchResyncRequest{Vm: last.GetVm(), Id: last.GetId()})
	if err != nil {
		return err
	}
	return receive(ctx, cancel, stream.Recv, func(newest *vmreplicav1.Resync, isNew bool) error {
		if isNew {
			last = newest
		}
		show(last, isNew)
		return nil
	})
}

// receive hands every message of a stream to take, and each second that brings none an empty one that is not new.
// It ends with the stream's end, with ctx, or with take's error; the stream is cancelled and no goroutine is left.
func receive[M any](ctx context.Context, cancel func(), next func() (*M, error), take func(message *M, isNew bool) error) error {
	messages, ended := make(chan *M), make(chan error, 1)
	go func() {
		defer close(messages)
		ended <- pump(ctx, next, messages)
	}()
	defer func() {
		cancel()
		for range messages {
		}
	}()
	ticker := time.NewTicker(watchTick)
	defer ticker.Stop()
	for {
		var err error
		select {
		case message, open := <-messages:
			if !open {
				return <-ended
			}
			err = take(message, true)
		case <-ticker.C:
			err = take(nil, false)
		}
		if err != nil {
			return err
		}
	}
}

// pump hands on what next gives until that or ctx ends.
func pump[M any](ctx context.Context, next func() (*M, error), messages chan<- *M) error {
	for {
		message, err := next()
		if err != nil {
			return err
		}
		select {
		case messages <- message:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reconnection decides what becomes of a watch that ended early.
type reconnection struct {
	note    func(format string, args ...any)
	goesOn  string
	backoff *transport.Backoff
}

// reconnects makes a reconnection; goesOn says what is not concerned by a lost connection.
func (v *invocation) reconnects(progress interface{ Note(string, ...any) }, goesOn string) *reconnection {
	return &reconnection{note: progress.Note, goesOn: goesOn, backoff: transport.NewBackoff(watchBase, watchMost, nil)}
}

// answered notes that the agent is there again.
func (r *reconnection) answered() {
	if n := r.backoff.Attempts(); n > 0 {
		r.note("connected again after %d %s", n, map[bool]string{true: "attempt", false: "attempts"}[n == 1])
		r.backoff.Reset()
	}
}

// after waits until the watch is to begin again; the error when it is not.
func (r *reconnection) after(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	found := failure.Find(api.FromCall(ctx, err))
	if !errors.Is(err, io.EOF) && !failure.Retryable(found) {
		return err
	}
	if r.backoff.Attempts() == 0 {
		why := "the agent ended the watch"
		if !errors.Is(err, io.EOF) {
			why = found.Message
		}
		r.note("connection lost; %s, and the agent is asked again: %s", r.goesOn, why)
	}
	return sleep(ctx, r.backoff.Next())
}

// typed is a command of this program as it is to be typed, with the flags that this invocation needed.
func (v *invocation) typed(format string, args ...any) string {
	line := "vmreplica "
	if v.server != "" {
		line += "--server " + shellWord(v.server) + " "
	}
	if v.tlsDir != "" {
		line += "--tls-dir " + shellWord(v.tlsDir) + " "
	}
	return line + fmt.Sprintf(format, args...)
}
