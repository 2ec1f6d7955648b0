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
	// CutTime is when the machine was as the cut has it, by the primary's clock; zero when it does not say.
	CutTime time.Time
	Time    time.Time
}

// Root is what a disk must hold: the root of its pass or, where it shipped only marks, of the commit before; and the last
// shipment with its root, where anything was shipped.
type Root struct {
	Disk         string
	Root         blockdiff.Hash
	Shipment     replication.ID
	ShipmentRoot blockdiff.Hash
}

// settled is what the files themselves say when a transfer commits.
type settled struct {
	// written are disks whose layer holds anything.
	written map[string]bool
	// stamps are those of the files that the transfer wrote: a base itself, or a layer.
	stamps map[string]disk.Stamp
}

// commit makes the open transfer the VM's content: receiving layers count from here, or are dropped when they
// hold nothing; an incomplete base is complete. Repeating a commit changes nothing. Failures: WRONG_STATE when
// the transfer is not open, not proven or not shipped to its end, PROOF_FAILED when a root is another one,
// REPLICA_RECORD_MISMATCH when marks were shipped onto a disk that is in doubt.
func (r *Record) commit(c Commit, s settled) error {
	if done, err := r.committedBefore(c); done || err != nil {
		return err
	}
	if err := r.checkCommit(c); err != nil {
		return err
	}
	prover, err := blockdiff.NewProver(r.Transfer.Proof)
	if err != nil {
		return failure.New(failure.Internal, failure.ReasonInternal, "combine the roots: %w", err).On(r.VM, "")
	}
	doubted := slices.ContainsFunc(r.Disks, func(d Disk) bool { return d.Doubt != "" })
	for _, root := range c.Roots {
		d := r.Disk(root.Disk)
		d.Root, d.Doubt = root.committed(prover), ""
		if d.Base.Incomplete {
			d.Base.Incomplete = false
			d.Base.settle(s.stamps[d.ID])
		}
		r.dropLayers(d, func(l Layer) bool { return l.State == Receiving && !s.written[d.ID] })
		for i := range d.Layers {
			if d.Layers[i].State == Receiving {
				d.Layers[i].State, d.Layers[i].Stamp = Committed, s.stamps[d.ID]
			}
		}
	}
	if doubted || r.Transfer.Kind != replication.KindDelta && len(s.written) > 0 {
		r.voidPoints()
	}
	r.Lineage, r.Cut, r.CommittedTransfer = c.Lineage, c.Cut, c.Transfer
	r.CommitTime, r.ProvenTime, r.CutTime, r.ProvenRoot = c.Time, c.Time, c.CutTime, r.combine(prover)
	if !c.CutTime.IsZero() {
		r.ProvenTime = c.CutTime
	}
	r.CommitDuration = c.Time.Sub(r.Transfer.StartTime)
	if r.Transfer.Kind != replication.KindDelta { // those come every few seconds
		r.tell(event.New(event.TypeResyncCommitted, r.VM, "", "The replica of the virtual machine holds the content of the "+
			"committed transfer.", map[string]string{
			"transfer": string(c.Transfer), "lineage": string(c.Lineage), "cut": string(c.Cut), "root": r.ProvenRoot,
		}))
	}
	r.Transfer = nil
	return nil
}

// combine is the root over all disks.
func (r *Record) combine(p *blockdiff.Prover) string {
	names := make([]string, len(r.Disks))
	roots := make([]blockdiff.Hash, len(r.Disks))
	for i, d := range r.Disks {
		names[i], roots[i] = d.ID, d.Root
	}
	return p.Combine(names, roots).String()
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
	case c.Cut == r.Cut || (c.Lineage == r.Lineage) != (r.Transfer.Kind == replication.KindDelta):
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"a cut is never used twice; a delta keeps the lineage, and nothing else does").On(r.VM, "")
	case len(c.Roots) != len(r.Transfer.Disks):
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument,
			"the transfer has %d disks and the commit names %d", len(r.Transfer.Disks), len(c.Roots)).On(r.VM, "")
	}
	return r.checkRoots(c)
}

func (r *Record) checkRoots(c Commit) error {
	shipped := 0
	for _, t := range r.Transfer.Disks {
		i := slices.IndexFunc(c.Roots, func(root Root) bool { return root.Disk == t.ID })
		if i < 0 {
			return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "the commit does not name this disk").
				On(r.VM, t.ID)
		}
		if err := r.checkRoot(t, c.Roots[i]); err != nil {
			return err
		}
		if err := r.checkShipment(t, c.Roots[i], c.Cut); err != nil {
			return err
		}
		if c.Roots[i].Shipment != "" {
			shipped++
		}
	}
	if shipped > 0 && shipped < len(r.Transfer.Disks) {
		return failure.New(failure.Invalid, failure.ReasonInvalidArgument, "a cut is of all disks, and %d of %d were shipped",
			shipped, len(r.Transfer.Disks)).On(r.VM, "")
	}
	return nil
}

func (r *Record) checkRoot(t TransferDisk, root Root) error {
	d := r.Disk(t.ID)
	switch {
	case t.MarksOnly && root.Root != d.Root:
		return failure.New(failure.Precondition, failure.ReasonReplicaRecord,
			"the replica has committed root %s, the primary's marks follow %s", d.Root, root.Root).On(r.VM, t.ID)
	case t.MarksOnly:
		return r.checkMarked(d)
	case !t.Proven:
		return failure.New(failure.Precondition, failure.ReasonWrongState, "the disk is not proven to its end").
			On(r.VM, t.ID)
	case root.Root != t.Root:
		return failure.New(failure.Corrupt, failure.ReasonProofFailed,
			"the replica holds root %s, the commit names %s", t.Root, root.Root).On(r.VM, t.ID)
	}
	return nil
}
