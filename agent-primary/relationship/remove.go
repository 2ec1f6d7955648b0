package relationship

import (
	"context"

	"vmreplica/internal/failure"
)

// Remove ends a relationship.
type Remove struct {
	// DeleteData deletes the replica's disks as well.
	DeleteData bool
	// Force ends it here though the replica cannot be reached or refuses.
	Force bool
}

// Remove ends a relationship, first on the replica, then here, and answers what was left or deleted. One that the
// replica no longer knows is forgotten.
func (m *Manager) Remove(ctx context.Context, vm string, asked Remove) ([]string, error) {
	o, err := m.owner(vm)
	if err != nil {
		return nil, err
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
	notes, err := m.config.Replicas.At(record.Spec.ReplicaAddress, record.identity()).Release(ctx, asked.DeleteData)
	switch {
	case err == nil:
	case hasClass(err, failure.NotFound):
		notes = []string{"The replica had no record of it."}
	case asked.Force:
		notes = []string{"The replica was not released and keeps what it has: " + failure.Find(err).Message}
	default:
		if _, _, thawErr := o.apply(ctx, change{thaw: true}); thawErr != nil {
			return nil, thawErr
		}
		return nil, removeRemedy(err, vm)
	}
	return notes, m.forget(ctx, o, []Fact{removed(record)})
}

func removeRemedy(err error, vm string) error {
	found := failure.Find(err).On(vm, "")
	if found.Class != failure.Unreachable {
		return found
	}
	return found.Try("To end it here alone: vmreplica remove %s --force", vm)
}

// forget erases a record and ends its owner.
func (m *Manager) forget(ctx context.Context, o *owner, facts []Fact) error {
	_, _, err := o.apply(ctx, change{erase: true, transition: func(r Record) (Record, []Fact, error) {
		return r, facts, nil
	}})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.owners, o.record().Name)
	return nil
}
