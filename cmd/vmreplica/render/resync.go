package render

import (
	"fmt"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// blockSize is what blocks are counted in, in bytes.
const blockSize = 64 << 10

// Ended says whether nothing follows a resync's state.
func Ended(r *vmreplicav1.Resync) bool {
	switch r.GetState() {
	case vmreplicav1.ResyncState_RESYNC_STATE_DONE, vmreplicav1.ResyncState_RESYNC_STATE_CANCELLED,
		vmreplicav1.ResyncState_RESYNC_STATE_FAILED:
		return true
	}
	return r.GetEndTime() != nil
}

// KindWord is what a resync is called in a sentence.
func KindWord(kind vmreplicav1.ResyncKind) string {
	switch kind {
	case vmreplicav1.ResyncKind_RESYNC_KIND_INITIAL:
		return "initial replication"
	case vmreplicav1.ResyncKind_RESYNC_KIND_VERIFY:
		return "verify"
	default:
		return "resync"
	}
}

// Resync writes one resync with a row for each disk.
func (p Printer) Resync(r *vmreplicav1.Resync) error {
	return p.Message(r, func(page *Page) { page.resync(r) })
}

func (p *Page) resync(r *vmreplicav1.Resync) {
	p.Line("%s", headline(r))
	rows := newTable("DISK", "SIZE", "COMPARED", "DIFFERING", "BLOCKS", "SENT", "RECEIVED", "TIME", "ROOT")
	for _, disk := range r.GetDisks() {
		root := disk.GetRoot()
		if !p.wide {
			root = short(root)
		}
		rows.add(disk.GetId(), Size(disk.GetSizeBytes()), Size(min(disk.GetBlocksCompared()*blockSize, disk.GetSizeBytes())),
			Size(disk.GetBytesDiffering()), fmt.Sprint(disk.GetBlocksDiffering()), Size(disk.GetWireBytesSent()),
			Size(disk.GetWireBytesReceived()), span(disk.GetDuration()), root)
		if disk.GetMarksOnly() {
			rows.note("its log was exact: what was marked is sent, and nothing compared")
		}
		if disk.GetCaughtUpBytes() > 0 {
			rows.note("%s that were written meanwhile are sent as well", Size(disk.GetCaughtUpBytes()))
		}
		if disk.GetSegmentsResent() > 0 {
			rows.note("%s did not match at first and were sent again", plural(disk.GetSegmentsResent(), "segment"))
		}
	}
	rows.on(p)
	p.courseOf(r)
}

// headline is a resync in a sentence: what it is, how far it is, and how it ended.
func headline(r *vmreplicav1.Resync) string {
	line := fmt.Sprintf("%s %s of the VM %s: %s", capital(KindWord(r.GetKind())), short(r.GetId()), r.GetVm(), Word(r.GetState()))
	if r.GetSuspended() {
		line += join(": ", ", suspended", r.GetSuspendReason())
	}
	if r.GetResult() != "" {
		line += ": " + r.GetResult()
	}
	if r.GetReason() != "" {
		line += " (" + r.GetReason() + ")"
	}
	return line
}

func capital(text string) string { return string(text[0]-'a'+'A') + text[1:] }

// courseOf adds when it ran and what happened on the way.
func (p *Page) courseOf(r *vmreplicav1.Resync) {
	p.fact("Cause", r.GetCause())
	if r.GetStartTime() != nil {
		p.fact("Start", moment(r.GetStartTime(), p.now))
	}
	if r.GetRounds() > 0 {
		p.fact("Rounds", fmt.Sprintf("%d, the cut included", r.GetRounds()))
	}
	if r.GetCommitTime() != nil {
		p.fact("Committed", join(", after ", moment(r.GetCommitTime(), p.now), span(r.GetDuration())))
	}
	if r.GetEndTime() != nil {
		p.fact("End", moment(r.GetEndTime(), p.now))
	}
	if again := r.GetNextAttemptTime(); again != nil && !Ended(r) {
		p.fact("Next attempt", moment(again, p.now))
	}
	p.fact("Waits because", join(". ", r.GetProblem(), r.GetRemedy()))
	if n := r.GetReconnects(); n > 0 {
		p.fact("Not reached", times(n)+", each attempt counted; it goes on where it was")
	}
	if n := r.GetRestarts(); n > 0 {
		p.fact("Image changed", times(n)+"; the pass began again")
	}
}

func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// Resyncs writes a VM's resyncs, a row each.
func (p Printer) Resyncs(list *vmreplicav1.ListResyncsResponse) error {
	return p.Message(list, func(page *Page) {
		if len(list.GetResyncs()) == 0 {
			page.Line("There was no resync.")
			return
		}
		heading := []string{"ID", "KIND", "STATE", "START", "DURATION", "COMPARED", "DIFFERING", "SENT", "RESULT"}
		if page.wide {
			heading = append(heading, "CAUSE", "LINEAGE")
		}
		rows := newTable(heading...)
		for _, r := range list.GetResyncs() {
			rows.add(page.resyncRow(r)...)
		}
		rows.on(page)
	})
}

func (p *Page) resyncRow(r *vmreplicav1.Resync) []string {
	var compared, differing, wire int64
	for _, disk := range r.GetDisks() {
		progress := disk.GetProgress()
		compared += max(progress.GetComparedBytes(), min(disk.GetBlocksCompared()*blockSize, disk.GetSizeBytes()))
		differing += max(progress.GetDifferingBytes(), disk.GetBytesDiffering())
		wire += sent(disk)
	}
	result := r.GetResult()
	if r.GetReason() != "" {
		result = join(" ", result, "("+r.GetReason()+")")
	}
	row := []string{short(r.GetId()), Word(r.GetKind()), Word(r.GetState()), start(r, p.now), span(r.GetDuration()),
		Size(compared), Size(differing), Size(wire), result}
	if p.wide {
		row = append(row, r.GetCause(), short(r.GetLineage()))
	}
	return row
}

func start(r *vmreplicav1.Resync, now time.Time) string {
	if r.GetStartTime() == nil {
		return none
	}
	return Moment(r.GetStartTime().AsTime(), now)
}
