package relationship

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/state"
)

// Remove ends a relationship.
type Remove struct {
	// DeleteData deletes the replica's disks as well.
	DeleteData bool
	// Force ends it here though the replica cannot be reached or refuses.
	Force bool
	// Request names the call; repeated, it is answered the same.
	Request state.Request
}

// Remove ends a relationship, first on the replica, then here, and answers what was left or deleted. One that the
// replica no longer knows is forgotten.
func (m *Manager) Remove(ctx context.Context, vm string, asked Remove) ([]string, error) {
	o, err := m.owner(vm)
	if err != nil {
		return m.removedBefore(asked.Request, err)
	}
	release, err := m.reserve(vm)
	if err != nil {
		return nil, err
	}
	defer release()
	record, _, err := o.apply(ctx, change{freeze: true})
	if err != nil {
		return nil, err
	}
	if o.machine.attached() {
		_, _, thawErr := o.apply(ctx, change{thaw: true})
		return nil, errors.Join(failure.New(failure.Precondition, failure.ReasonAttached, "the machine has its disks attached through the agent").
			On(vm, "").Try("Shut the machine down, or start it on its files, then remove it."), thawErr)
	}
	notes, err := m.release(ctx, record, asked)
	if err == nil {
		err = m.forget(ctx, o, change{
			request: asked.Request, answer: func(Record) []byte { return joinNotes(notes) },
			transition: func(r Record) (Record, []event.Event, error) { return r, []event.Event{removed(r)}, nil },
		})
	}
	if err == nil {
		return notes, nil
	}
	if _, _, thawErr := o.apply(ctx, change{thaw: true}); thawErr != nil {
		return nil, thawErr
	}
	return nil, removeRemedy(err, vm)
}

// release ends the relationship on the replica.
func (m *Manager) release(ctx context.Context, record Record, asked Remove) ([]string, error) {
	notes, err := m.config.Replicas.At(record.Spec.ReplicaAddress, record.identity()).Release(ctx, asked.DeleteData)
	switch {
	case hasClass(err, failure.NotFound):
		return []string{"The replica had no record of it."}, nil
	case err != nil && asked.Force:
		return []string{"The replica was not released and keeps what it has: " + failure.Find(err).Message}, nil
	default:
		return notes, err
	}
}

// removedBefore answers a removal that was asked for under the same request before, else notFound.
func (m *Manager) removedBefore(request state.Request, notFound error) (notes []string, err error) {
	err = m.config.Store.Update(func(tx state.Tx) error {
		answer, err := m.config.Requests.Do(tx, request, func() ([]byte, error) { return nil, notFound })
		notes = splitNotes(answer)
		return err
	})
	return notes, err
}

// joinNotes and splitNotes keep sentences as lines.
func joinNotes(notes []string) []byte { return []byte(strings.Join(notes, "\n")) }

func splitNotes(kept []byte) []string {
	if len(kept) == 0 {
		return nil
	}
	return strings.Split(string(kept), "\n")
}

func removeRemedy(err error, vm string) error {
	found := failure.Find(err).On(vm, "")
	if found.Class != failure.Unreachable && found.Reason != failure.ReasonWrongRole &&
		found.Reason != failure.ReasonStaleTerm {
		return found
	}
	return found.Try("To end it here alone: vmreplica remove %s --force", vm)
}

// unchanged is the transition to the same record.
func unchanged(r Record) (Record, []event.Event, error) { return r, nil, nil }

// forget erases a record and ends its owner.
func (m *Manager) forget(ctx context.Context, o *owner, c change) error {
	c.erase = true
	if _, _, err := o.apply(ctx, c); err != nil {
		return err
	}
	<-o.ended
	o.removeLogs()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.owners, o.record().Name)
	return nil
}

// removeLogs deletes the HRLs of a VM that is forgotten. One that stays is found to be another disk's later.
func (o *owner) removeLogs() {
	record := o.record()
	for _, d := range record.Disks {
		if d.Log == nil {
			continue
		}
		if err := o.config.Logs.Remove(LogName(record.Name, d.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			o.log.Warn("the log of a removed disk stays", "disk", d.ID, "error", err)
		}
	}
}
