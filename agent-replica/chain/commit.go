package chain

import (
	"slices"
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// Commit asks for the commit of the open transfer over all of its disks.
type Commit struct {
	Transfer replication.ID
	// Term is the caller's; one that is lower than the record's is refused.
	Term uint64
	// Lineage and Cut are what the commit establishes.
	Lineage, Cut replication.ID
	// Roots are what the replica must hold, for every disk of the transfer.
	Roots []Root
	Time  time.Time
}

// Root is a disk's proven root.
type Root struct {
	Disk string
	Root blockdiff.Hash
}

// settled is what the files themselves say when a transfer commits.
type settled struct {
	// written are disks whose layer holds anything.
	written map[string]bool
	// stamps are those of bases that the transfer wrote itself.
	stamps map[string]disk.Stamp
	// provenRoot is the root over all disks.
	provenRoot string
}

// commit makes the open transfer the VM's content: receiving layers count from here, or are dropped when they
// hold nothing; an incomplete base is complete. Repeating a commit changes nothing. Failures: WRONG_STATE when
// the transfer is not open or not proven, PROOF_FAILED when a root is another one.
func (r *Record) commit(c Commit, s settled) error {
	if done, err := r.committedBefore(c); done || err != nil {
		return err
	}
	if err := r.checkCommit(c); err != nil {
		return err
	}
	for _, root := range c.Roots {
		d := r.Disk(root.Disk)
		d.Root, d.Doubt = root.Root, ""
		if d.Base.Incomplete {
			d.Base.Incomplete = false
			d.Base.settle(s.stamps[d.ID])
		}
		r.dropLayers(d, func(l Layer) bool { return l.State == Receiving && !s.written[d.ID] })
		for i := range d.Layers {
			if d.Layers[i].State == Receiving {
				d.Layers[i].State = Committed
			}
		}
	}
	if r.Transfer.Kind != replication.KindDelta && len(s.written) > 0 {
		r.voidPoints()
	}
	r.Lineage, r.Cut, r.CommittedTransfer = c.Lineage, c.Cut, c.Transfer
	r.CommitTime, r.ProvenTime, r.ProvenRoot = c.Time, c.Time, s.provenRoot
	r.CommitDuration = c.Time.Sub(r.Transfer.StartTime)
	r.tell(event.New(event.TypeResyncCommitted, r.VM, "", "The replica of the virtual machine holds the content of the "+
		"committed transfer.", map[string]string{
		"transfer": string(c.Transfer), "lineage": string(c.Lineage), "cut": string(c.Cut), "root": s.provenRoot,
	}))
	r.Transfer = nil
	return nil
}

// committedBefore says whether this very commit has happened.
func (r *Record) committedBefore(c Commit) (bool, error) {
	if c.Transfer == "" || c.Transfer != r.CommittedTransfer {
		return false, nil
	}
	if c.Lineage != r.Lineage || c.Cut != r.Cut {
		return false, failure.New(failure.Precondition, failure.ReasonCommitted,
			"transfer %s has committed with lineage %s and cut %s", c.Transfer, r.Lineage, r.Cut).On(r.VM, "")
	}
	return true, nil
}

func (r *Record) checkCommit(c Commit) error {
	if err := r.checkOpen(c.Transfer); err != nil {
		return err
	}
	if err := r.Transfer.usable(); err != nil {
		return failure.Locate(err, r.VM, "")
	}
	switch {
	case c.Term < r.Term:
		return r.staleTerm(c.Term)
	case len(r.Creating) > 0:
		return failure.New(failure.Precondition, failure.ReasonWrongState, "the transfer was not begun to its end").
			On(r.VM, "")
	case r.Transfer.Kind == replication.KindVerify:
		return failure.New(failure.Precondition, failure.ReasonWrongState,
			"a verify writes nothing and has nothing to commit").On(r.VM, "").Try("End it with an abort.")
	case !c.Lineage.Valid() || !c.Cut.Valid():
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"lineage and cut must be 32 hexadecimal digits").On(r.VM, "")
	case c.Lineage == r.Lineage || c.Cut == r.Cut:
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a lineage and a cut are never used twice").On(r.VM, "")
	case len(c.Roots) != len(r.Transfer.Disks):
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the transfer has %d disks and the commit names %d", len(r.Transfer.Disks), len(c.Roots)).On(r.VM, "")
	}
	return r.checkRoots(c.Roots)
}

func (r *Record) checkRoots(roots []Root) error {
	for _, t := range r.Transfer.Disks {
		i := slices.IndexFunc(roots, func(root Root) bool { return root.Disk == t.ID })
		switch {
		case i < 0:
			return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the commit does not name this disk").
				On(r.VM, t.ID)
		case !t.Proven:
			return failure.New(failure.Precondition, failure.ReasonWrongState, "the disk is not proven to its end").
				On(r.VM, t.ID)
		case roots[i].Root != t.Root:
			return failure.New(failure.Corrupt, failure.ReasonProofFailed,
				"the replica holds root %s, the commit names %s", t.Root, roots[i].Root).On(r.VM, t.ID)
		}
	}
	return nil
}
