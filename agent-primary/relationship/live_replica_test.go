package relationship_test

import (
	"bytes"
	"context"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/agent-primary/ship"
	"vmreplica/blockdiff"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// At implements Replicas.
func (c *copies) At(string, relationship.Identity) relationship.Replica { return c }

// Transfers implements Replica.
func (c *copies) Transfers(blockdiff.Algorithm) relationship.Transfers { return c }

func (c *copies) enter() error {
	c.mu.Lock()
	if c.down {
		c.mu.Unlock()
		return unreachable()
	}
	if c.refuse != nil {
		err := c.refuse
		c.mu.Unlock()
		return err
	}
	return nil
}

// Hello implements Replica.
func (c *copies) Hello(context.Context) (relationship.Hello, error) {
	if err := c.enter(); err != nil {
		return relationship.Hello{}, err
	}
	defer c.mu.Unlock()
	return relationship.Hello{Name: "host2", Proof: blockdiff.BLAKE3, Authorization: "entry"}, nil
}

// Reconcile implements Replica.
func (c *copies) Reconcile(context.Context, int) (relationship.Position, error) {
	if err := c.enter(); err != nil {
		return relationship.Position{}, err
	}
	defer c.mu.Unlock()
	position := c.position
	for id, content := range c.held {
		position.Disks = append(position.Disks, relationship.PositionDisk{ID: id, Root: sumOf(content).String()})
	}
	return position, nil
}

// Prepare implements Replica.
func (c *copies) Prepare(_ context.Context, p relationship.Preparation) ([]string, error) {
	return make([]string, len(p.Disks)), nil
}

// Release implements Replica.
func (c *copies) Release(context.Context, bool) ([]string, error) { return nil, nil }

// Begin implements Peer: a delta is refused unless it follows what the replica holds.
func (c *copies) Begin(_ context.Context, begin resync.Begin) ([]resync.Cursor, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	follows := begin.Lineage == c.position.Lineage && begin.Cut == c.position.Cut
	if (begin.Kind == replication.KindDelta || len(begin.MarksOnly) > 0) && !follows {
		return nil, failure.New(failure.Precondition, failure.ReasonReplicaRecord, "it follows another cut")
	}
	if c.position.Transfer != "" && c.position.Transfer != begin.Transfer && !begin.Restart {
		return nil, failure.New(failure.Exists, failure.ReasonResyncRunning, "transfer %s is open", c.position.Transfer)
	}
	if c.position.Transfer != begin.Transfer {
		c.fresh = map[string][]byte{}
		for id, content := range c.held {
			c.fresh[id] = bytes.Clone(content)
		}
	}
	c.position.Transfer = begin.Transfer
	c.kinds, c.marksOnly = append(c.kinds, begin.Kind), begin.MarksOnly
	return make([]resync.Cursor, max(len(begin.Disks), len(c.held))), nil
}

// Open implements Peer.
func (c *copies) Open(context.Context, resync.Open) (resync.Stream, resync.Opened, error) {
	return closed{}, resync.Opened{}, nil
}

// Ship implements Peer.
func (c *copies) Ship(context.Context, ship.Open) (ship.Stream, ship.Opened, error) {
	return nil, ship.Opened{}, unreachable()
}

// Commit implements Peer.
func (c *copies) Commit(_ context.Context, commit resync.Commit) (resync.Committed, error) {
	if err := c.enter(); err != nil {
		return resync.Committed{}, err
	}
	defer c.mu.Unlock()
	if c.position.Cut != commit.Cut {
		if c.position.Transfer != commit.Transfer {
			return resync.Committed{}, failure.New(failure.Precondition, failure.ReasonWrongState, "not open")
		}
		c.commits++
		c.position = relationship.Position{Lineage: commit.Lineage, Cut: commit.Cut, CommittedTransfer: commit.Transfer}
		c.held = c.fresh
	}
	if c.loseReply {
		c.loseReply = false
		return resync.Committed{}, unreachable()
	}
	return resync.Committed{}, nil
}

// Abort implements Peer.
func (c *copies) Abort(_ context.Context, transfer replication.ID) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.mu.Unlock()
	if c.position.Transfer == transfer {
		c.position.Transfer, c.fresh = "", nil
	}
	return nil
}
