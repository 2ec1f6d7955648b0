package replica

import (
	"context"

	"vmreplica/agent-replica/authorization"
	"vmreplica/agent-replica/chain"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
	vmreplicav1 "vmreplica/proto/vmreplica/v1"
	"vmreplica/transport"
)

// Gate admits the calls of primaries.
type Gate struct {
	table *chain.Table
	book  *authorization.Book
	// raised is told of a VM whose term was raised, when that is durable.
	raised func(vm string, term uint64)
}

// caller is who calls, and the entry that admits it; NOT_AUTHORIZED when none does.
func (g *Gate) caller(ctx context.Context) (transport.Identity, authorization.Entry, error) {
	identity, ok := transport.PeerIdentity(ctx)
	if !ok {
		return identity, authorization.Entry{}, failure.New(failure.Denied, failure.ReasonNotAuthorized,
			"the caller has shown no certificate")
	}
	entry, err := g.book.Match(identity)
	return identity, entry, err
}

// Admit is the record that the caller names, when the caller may act on it. A higher term than the record's is
// durable when it returns. NOT_FOUND, NOT_AUTHORIZED, STALE_TERM; FAILED_OVER, whatever the term.
func (g *Gate) Admit(ctx context.Context, named *vmreplicav1.Relationship) (chain.Record, error) {
	identity, entry, err := g.caller(ctx)
	if err != nil {
		return chain.Record{}, err
	}
	if err := replication.CheckName("VM", named.GetVm()); err != nil {
		return chain.Record{}, err
	}
	record, err := g.table.Get(named.GetVm())
	if err != nil {
		return chain.Record{}, err
	}
	if err := g.owns(identity, entry, record, named); err != nil {
		return chain.Record{}, err
	}
	if err := record.CheckFailover(); err != nil {
		return chain.Record{}, err
	}
	if named.GetTerm() == record.Term {
		return record, nil
	}
	raised, err := g.table.Update(record.VM, func(r *chain.Record) error {
		if err := g.owns(identity, entry, *r, named); err != nil {
			return err
		}
		if err := r.CheckFailover(); err != nil {
			return err
		}
		return r.RaiseTerm(named.GetTerm())
	})
	if err == nil {
		g.raised(record.VM, raised.Term)
	}
	return raised, err
}

func (g *Gate) owns(identity transport.Identity, entry authorization.Entry, record chain.Record,
	named *vmreplicav1.Relationship) error {
	switch {
	case record.Primary != identity.String() || record.Authorization != entry.Pattern:
		return failure.New(failure.Denied, failure.ReasonNotAuthorized, "the replica of this VM belongs to another primary").
			On(record.VM, "")
	case string(record.UID) != named.GetUid():
		return failure.New(failure.NotFound, failure.ReasonNotFound,
			"this replica holds the VM for another replication, uid %s", record.UID).On(record.VM, "")
	}
	return nil
}
