package command

import (
	"context"
	"maps"
	"slices"

	"vmreplica/cmd/vmreplica/render"
	"vmreplica/internal/failure"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// watched is what a watch has shown.
type watched struct {
	*invocation
	vm string
	// terminal says that the whole table is drawn again at each change.
	terminal bool
	known    map[string]*vmreplicav1.Replication
	// fresh are those that the present snapshot has named; nil once it is complete.
	fresh map[string]bool
}

// watch shows what is and what changes until ctx ends, over lost connections; a named VM must exist.
func (v *invocation) watch(ctx context.Context, vm string) error {
	w := &watched{
		invocation: v, vm: vm, known: map[string]*vmreplicav1.Replication{},
		terminal: render.IsTerminal(v.Out) && !v.printer.ForMachines(),
	}
	retry := v.reconnects(v, "replication goes on")
	for {
		err := w.once(ctx, retry)
		if err == nil {
			return nil
		}
		if err := retry.after(ctx, err); err != nil {
			return err
		}
	}
}

// Note says what is not a result.
func (v *invocation) Note(format string, args ...any) {
	page := &render.Page{}
	page.Line(format, args...)
	page.WriteTo(v.Err)
}

// once follows one stream; nil when there is nothing left to watch.
func (w *watched) once(ctx context.Context, retry *reconnection) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.fresh = map[string]bool{}
	stream, err := w.replications().WatchReplications(ctx, &vmreplicav1.WatchReplicationsRequest{Name: w.vm})
	if err != nil {
		return err
	}
	err = receive(ctx, cancel, stream.Recv, func(update *vmreplicav1.WatchReplicationsResponse, isNew bool) error {
		if !isNew {
			return nil
		}
		retry.answered()
		return w.take(update)
	})
	if err == errGone {
		return nil
	}
	return err
}

// errGone ends the watch of a VM that is not replicated any more.
var errGone = exit{ExitDone}

func (w *watched) take(update *vmreplicav1.WatchReplicationsResponse) error {
	switch {
	case update.GetReplication() != nil:
		return w.changed(update.GetReplication())
	case update.GetDeleted() != "":
		return w.gone(update.GetDeleted())
	case !update.GetSnapshotComplete():
		return nil
	}
	fresh := w.fresh
	w.fresh = nil
	for _, name := range slices.Sorted(maps.Keys(w.known)) {
		if !fresh[name] {
			if err := w.gone(name); err != nil {
				return err
			}
		}
	}
	if w.vm != "" && len(w.known) == 0 {
		return failure.New(failure.NotFound, failure.ReasonNotFound, "it is not replicated here").On(w.vm, "").
			Try("Which are: %s", w.typed("get"))
	}
	return w.draw()
}

func (w *watched) changed(r *vmreplicav1.Replication) error {
	w.known[r.GetName()] = r
	if w.fresh != nil {
		w.fresh[r.GetName()] = true
	}
	if w.terminal {
		return w.draw()
	}
	return w.printer.ReplicationLine(r)
}

func (w *watched) gone(name string) error {
	delete(w.known, name)
	w.Note("The VM %s is not replicated any more.", name)
	if name == w.vm {
		return errGone
	}
	return w.draw()
}

// draw writes the whole table on a terminal, once the snapshot is complete.
func (w *watched) draw() error {
	if !w.terminal || w.fresh != nil {
		return nil
	}
	list := &vmreplicav1.ListReplicationsResponse{}
	for _, name := range slices.Sorted(maps.Keys(w.known)) {
		list.Replications = append(list.Replications, w.known[name])
	}
	if err := w.printer.ClearScreen(); err != nil {
		return err
	}
	return w.printer.Replications(list)
}
