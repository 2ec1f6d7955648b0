package durabletest

import "path"

// effect is an operation that a power loss may undo.
type effect struct {
	op *Op
	// doomed: a sync of it failed, and no later one covers it.
	doomed bool
	// certain: it was synced, but waits behind a doomed one of the same file, to be applied in its turn.
	certain bool
	// oldSynced and newSynced say which of a rename's directories were synced.
	oldSynced, newSynced bool
}

// advance takes one operation into account.
func (w *walk) advance(op *Op) {
	w.fresh = false
	switch {
	case op.Err != nil:
		w.advanceFailed(op)
	case op.ofContent(), op.ofNames():
		w.add(effect{op: op})
	case op.Kind == Sync:
		w.settleFile(op.file)
	case op.Kind == SyncDir:
		w.settleNames(op.Name)
	default:
		w.durable.apply(op, part{})
	}
}

// advanceFailed takes into account what a failed operation leaves: part of a write, effects that no sync will
// cover any more, a step in doubt.
func (w *walk) advanceFailed(op *Op) {
	switch {
	case len(op.data) > 0:
		w.add(effect{op: op})
	case op.Kind == Step && !isFull(op.Err):
		w.add(effect{op: op, doomed: true})
	case op.Kind == Sync:
		for i := range w.pending {
			pending := &w.pending[i]
			pending.doomed = pending.doomed || pending.op.ofContent() && pending.op.file == op.file && !pending.certain
		}
	case op.Kind == SyncDir:
		for i := range w.pending {
			pending := &w.pending[i]
			oldName, newName := pending.op.covers(op.Name)
			pending.doomed = pending.doomed || pending.op.ofNames() && (oldName || newName)
		}
	}
}

func (w *walk) add(e effect) {
	if e.op.Kind == Create && w.durable.files[e.op.file] == nil {
		w.durable.files[e.op.file] = newContent() // its content may become durable before its name
	}
	w.pending = append(w.pending, e)
	w.fresh = true
}

// settleFile makes what was done to a file durable.
func (w *walk) settleFile(file int) {
	behindDoomed := false
	w.keep(func(pending *effect) bool {
		switch {
		case !pending.op.ofContent() || pending.op.file != file:
			return true
		case pending.doomed:
			behindDoomed = true
			return true
		case behindDoomed:
			pending.certain = true
			return true
		}
		w.durable.apply(pending.op, part{})
		return false
	})
}

// settleNames makes what was done to a directory's names durable.
func (w *walk) settleNames(directory string) {
	w.keep(func(pending *effect) bool {
		if !pending.op.ofNames() || pending.doomed {
			return true
		}
		oldName, newName := pending.op.covers(directory)
		pending.oldSynced = pending.oldSynced || oldName
		pending.newSynced = pending.newSynced || newName
		if pending.op.Kind == Rename && path.Dir(pending.op.Name) == path.Dir(pending.op.To) {
			pending.newSynced = pending.oldSynced
		}
		if !pending.oldSynced || !pending.newSynced {
			return true
		}
		w.durable.apply(pending.op, part{})
		return false
	})
	w.durable.forget(w.isPending)
}

// isPending says whether an effect on the file may still be lost.
func (w *walk) isPending(file int) bool {
	for _, pending := range w.pending {
		if pending.op.file == file && pending.op.Kind <= Remove {
			return true
		}
	}
	return false
}

// keep drops the pending effects for which decide answers false.
func (w *walk) keep(decide func(*effect) bool) {
	kept := make([]effect, 0, len(w.pending))
	for i := range w.pending {
		if decide(&w.pending[i]) {
			kept = append(kept, w.pending[i])
		}
	}
	w.pending = kept
}

// losable is the places of the pending effects that may be lost.
func (w *walk) losable() []int {
	var places []int
	for i, pending := range w.pending {
		if !pending.certain {
			places = append(places, i)
		}
	}
	return places
}

func (w *walk) promisedBy(position int) []any {
	var values []any
	for _, mark := range w.marks {
		if mark.position <= position {
			values = append(values, mark.value)
		}
	}
	return values
}

// cuts are the ways in which a write that crosses a sector may survive in part: up to the first sector's end, the
// first half, all but the last sector, the second half alone, and as the file's size alone.
func cuts(op *Op) []part {
	if op.Kind != Write || len(op.data) == 0 {
		return nil
	}
	const sector = 512
	n := int64(len(op.data))
	first := sector - op.Offset%sector
	if first >= n {
		return []part{{sizeOnly: true}}
	}
	half := max(first, (op.Offset+n/2)/sector*sector-op.Offset)
	last := (op.Offset+n-1)/sector*sector - op.Offset
	parts := []part{{to: first}, {from: half, to: n}, {sizeOnly: true}}
	if half != first {
		parts = append(parts, part{to: half})
	}
	if last != first && last != half {
		parts = append(parts, part{to: last})
	}
	return parts
}
