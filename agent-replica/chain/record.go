package chain

import (
	"time"

	"vmreplica/blockdiff"
	"vmreplica/internal/disk"
	"vmreplica/internal/event"
	"vmreplica/internal/replication"
)

// Record is the truth about one VM on this replica: its disks' layers, its lineage, and the transfer that is
// open. It changes only in one transaction each time.
type Record struct {
	VM string
	// UID is the relationship's; another uid for the same VM is refused.
	UID replication.ID
	// Primary is the identity that owns the relationship; Authorization the entry that admitted it.
	Primary, Authorization string
	// Directory is where the VM's files lie, below the storage directory.
	Directory string
	// Term is the highest seen.
	Term uint64
	// Lineage and Cut are what the disks hold; empty before the first commit. CommittedTransfer minted them.
	Lineage, Cut      replication.ID
	CommittedTransfer replication.ID
	// ProvenTime and ProvenRoot belong to the last proof.
	ProvenTime time.Time
	ProvenRoot string
	// CommitTime is when a transfer last committed, CommitDuration how long after its beginning.
	CommitTime     time.Time
	CommitDuration time.Duration
	CreateTime     time.Time
	// CutTime is when the machine was as Cut has it, by the primary's clock; zero where the commit did not say.
	CutTime time.Time
	// RecoveryPoints is how many points are kept, as the primary's settings have it.
	RecoveryPoints int
	// PointCut is the newest point that was sealed, and PointTime when, by this host's clock; zero before the first one
	// of a lineage.
	PointCut  replication.ID
	PointTime time.Time
	// Failover is set once the replica was failed over to: its primary is refused, and its disks are the operator's.
	Failover *Failover `json:",omitempty"`
	// Prepared is set once every base exists, durably.
	Prepared bool
	// Releasing is set when the relationship ended here: what is in Garbage goes, then the record.
	Releasing bool
	Disks     []Disk
	// Transfer is the open one; nil when none is.
	Transfer *Transfer
	// Creating are layer files that the open transfer, or without one the sealing of a point, is about to make. No layer
	// refers to them yet.
	Creating []string
	// Garbage are files that no layer refers to any more and that are yet to be deleted.
	Garbage []string
	// told are events of the transaction that changes the record; they are not kept in it.
	told []event.Event
}

// Disk is one disk's layer table.
type Disk struct {
	ID                string
	SizeBytes         int64
	LogicalSectorSize int
	Base              Base
	// Differencing is what was asked of the differencing disks that transfers make, and Layer what followed from that
	// for this base; a record of before either was kept has the zero one.
	Differencing replication.Differencing
	Layer        LayerKind
	// Layers stand on the base, lowest first; the receiving one, if there is one, is the last.
	Layers []Layer
	// Root is the disk's last proven root.
	Root blockdiff.Hash
	// Doubt says in words how the base or a layer was found changed; empty when none was. A commit clears it.
	Doubt string
}

// Base is the lowest layer: a file below the storage directory, or a device that the operator mapped.
type Base struct {
	File   string
	Device string
	// Format is stated when the replica is prepared. Records of before it was kept have none: see ImageFormat.
	Format replication.Format
	// Incomplete until the initial replication commits: the base is being written and cannot be used.
	Incomplete bool
	// Lost says in words what a failed sync left unknown of an incomplete base, whose transfer is discarded; such a
	// base is never gone on with.
	Lost string
	// Stamp is the base's when this agent last settled it: prepared it, committed or merged into it, or closed it.
	Stamp disk.Stamp
	// SessionTime is when a session that writes to an incomplete base was last taken, by this host's clock.
	SessionTime time.Time
	// Writing is set before this agent writes to the base and taken back when it has settled it. Set on a base that
	// is not open it says that the agent has not ended in order.
	Writing bool
}

// ImageFormat is the format; raw for a base of before formats were kept.
func (b Base) ImageFormat() replication.Format {
	if b.Format == "" {
		return replication.FormatRaw
	}
	return b.Format
}

// LayerKind is what the differencing disks over a base are.
type LayerKind struct {
	Format replication.Format
	// Extension ends the names of their files; it begins with a dot.
	Extension string
}

// layerKind is the disk's; of a record of before kinds were kept, what was made then.
func (d *Disk) layerKind() LayerKind {
	if d.Layer == (LayerKind{}) {
		return LayerKind{Format: replication.FormatQCOW2, Extension: ".qcow2"}
	}
	return d.Layer
}

// LayerState is how far a layer is.
type LayerState string

// The states of a layer. A layer whose merge is done is no longer in the table.
const (
	Receiving LayerState = "receiving"
	Committed LayerState = "committed"
	Merging   LayerState = "merging"
)

// Layer is one differencing disk.
type Layer struct {
	File string
	// Format is that of the file. Records of before it was kept have none: see ImageFormat.
	Format replication.Format
	State  LayerState
	// Transfer is the one that filled it, and Kind that one's. A layer that was made for a point has an id of its own.
	// Records of before kinds were kept have none.
	Transfer replication.ID
	Kind     replication.ResyncKind
	// Point is set where the layer stands on a recovery point: all that lies below it, together, is that point.
	Point *Point `json:",omitempty"`
	// Stamp is the file's when this agent last settled it: committed it, made it for a point, or was done with the merge of
	// a neighbour. Zero while it is receiving, and in records of before it was kept.
	Stamp disk.Stamp
}

// place is the layer's file as Storage stamps it.
func (l Layer) place() Base { return Base{File: l.File, Format: l.Format} }

// told says whether the layer's merge is worth an event: those of cycles come every few seconds.
func (l Layer) told() bool { return l.Kind != replication.KindDelta }

// ImageFormat is the format; qcow2 for a layer of before formats were kept.
func (l Layer) ImageFormat() replication.Format {
	if l.Format == "" {
		return replication.FormatQCOW2
	}
	return l.Format
}

// Transfer is an open transfer of all disks.
type Transfer struct {
	ID    replication.ID
	Kind  replication.ResyncKind
	Proof blockdiff.Algorithm
	Disks []TransferDisk
	// StartTime is when it was begun.
	StartTime time.Time
	// Failed says in words what a failed sync of a receiving layer left unknown; such a transfer is begun anew or
	// aborted, never continued.
	Failed string
}

// TransferDisk is one disk's part of a transfer.
type TransferDisk struct {
	ID string
	// Segment and Chain are the cursor: segments before Segment are proven and durable, Chain is their chain
	// value. Never durable before the data it covers.
	Segment int64
	Chain   blockdiff.Hash
	// Session is the highest stream number seen.
	Session uint64
	// Root is set when the whole disk was proven.
	Root   blockdiff.Hash
	Proven bool
	// MarksOnly says that no pass goes over the disk: it is a delta's, or the primary's marks of it are exact.
	MarksOnly bool
	// Shipment is the last one that was begun since the pass; a zero one when there was none.
	Shipment Shipment
}

// Shipment is one shipment of a disk. Its Root is set when all of it is durable; until then it may be there in part.
type Shipment struct {
	ID   replication.ID
	Root blockdiff.Hash
}
