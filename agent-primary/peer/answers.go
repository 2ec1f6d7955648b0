package peer

import (
	"math"
	"slices"
	"strings"
	"unicode"

	"vmreplica/agent-primary/relationship"
	"vmreplica/agent-primary/resync"
	"vmreplica/internal/api"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// maxDisks bounds the disks of a VM, maxReason and maxProblem a problem's code and its sentences, in bytes.
const (
	maxDisks   = 64
	maxReason  = 64
	maxProblem = 1024
)

// readPosition is a replica's record, checked.
func readPosition(answer *vmreplicav1.ReconcileResponse) (relationship.Position, error) {
	position := relationship.Position{
		LayersToMerge: int(answer.GetLayersToMerge()), Incomplete: answer.GetIncomplete(),
	}
	for into, value := range map[*replication.ID]string{
		&position.Lineage: answer.GetLineage(), &position.Cut: answer.GetCut(),
		&position.Transfer: answer.GetTransfer(), &position.CommittedTransfer: answer.GetCommittedTransfer(),
	} {
		if *into = replication.ID(value); value != "" && !into.Valid() {
			return relationship.Position{}, violation("%q for an id", cut(value))
		}
	}
	if answer.GetLayersToMerge() < 0 || len(answer.GetDisks()) > maxDisks {
		return relationship.Position{}, violation("%d layers of %d disks", answer.GetLayersToMerge(), len(answer.GetDisks()))
	}
	position.MergeProblem = readMergeProblem(answer.GetMergeProblem())
	for _, disk := range answer.GetDisks() {
		merged, total := disk.GetMergedBytes(), disk.GetMergeTotalBytes()
		if replication.CheckName("disk", disk.GetId()) != nil || merged < 0 || merged > total {
			return relationship.Position{}, violation("%d of %d bytes merged for disk %q", merged, total, cut(disk.GetId()))
		}
		position.Disks = append(position.Disks, relationship.PositionDisk{
			ID: disk.GetId(), Doubt: cut(disk.GetDoubt()), Root: cut(disk.GetRoot()),
			MergedBytes: merged, MergeTotalBytes: total,
		})
	}
	return position, nil
}

// readMergeProblem is what stands in the way of a merge, made fit to be shown; nil for none.
func readMergeProblem(answer *vmreplicav1.MergeProblem) *relationship.MergeProblem {
	if answer == nil {
		return nil
	}
	found := failure.New(failure.Internal, cutTo(answer.GetReason(), maxReason), "%s", cutTo(answer.GetMessage(), maxProblem))
	if found.Reason == "" {
		found.Reason = failure.ReasonInternal
	}
	found.Remedy = cutTo(answer.GetRemedy(), maxProblem)
	if disk := answer.GetDisk(); replication.CheckName("disk", disk) == nil {
		found.Disk = disk
	}
	return &relationship.MergeProblem{Found: found, Since: api.TimeFromProto(answer.GetSince()), Final: answer.GetFinal()}
}

// readCursors are a replica's cursors in the order of the disks that were asked for, one each.
func readCursors(answers []*vmreplicav1.TransferCursor, disks []resync.BeginDisk) ([]resync.Cursor, error) {
	if len(answers) != len(disks) {
		return nil, violation("%d cursors for %d disks", len(answers), len(disks))
	}
	cursors := make([]resync.Cursor, 0, len(disks))
	for _, disk := range disks {
		at := slices.IndexFunc(answers, func(c *vmreplicav1.TransferCursor) bool { return c.GetDisk() == disk.ID })
		if at < 0 {
			return nil, violation("no cursor for disk %s", disk.ID)
		}
		cursor, err := readCursor(answers[at], disk.ID)
		if err != nil {
			return nil, err
		}
		cursors = append(cursors, cursor)
	}
	return cursors, nil
}

func readCursor(answer *vmreplicav1.TransferCursor, disk string) (resync.Cursor, error) {
	chain, err := readHash(answer.GetChain())
	if err != nil {
		return resync.Cursor{}, err
	}
	segment, session := answer.GetSegment(), answer.GetSession()
	if answer.GetDisk() != disk || segment < 0 || segment > maxSegments || session == math.MaxUint64 {
		return resync.Cursor{}, violation("the cursor %d of session %d for disk %q instead of %s",
			segment, session, cut(answer.GetDisk()), disk)
	}
	return resync.Cursor{Disk: disk, Segment: segment, Chain: chain, Session: session}, nil
}

func readOpened(answer *vmreplicav1.TransferOpened, asked resync.Open) (resync.Opened, error) {
	if answer == nil {
		return resync.Opened{}, violation("the opening of a stream with another message")
	}
	cursor, err := readCursor(answer.GetCursor(), asked.Disk)
	if err != nil {
		return resync.Opened{}, err
	}
	refine, frames := answer.GetRefineCreditBlocks(), answer.GetFrameCreditBytes()
	if refine < 1 || refine > maxRefine || frames < 1 || frames > maxCredit {
		return resync.Opened{}, violation("a credit of %d refinements and %d bytes of frames", refine, frames)
	}
	if asked.Restart && cursor.Segment != 0 {
		return resync.Opened{}, violation("the cursor %d to a restart", cursor.Segment)
	}
	return resync.Opened{Cursor: cursor, RefineCreditBlocks: refine, FrameCreditBytes: frames}, nil
}

// cut makes a replica's text fit to be logged and shown: bounded, and free of control characters.
func cut(text string) string { return cutTo(text, 256) }

func cutTo(text string, limit int) string {
	text = strings.ToValidUTF8(text[:min(len(text), limit)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
