package render

import (
	"fmt"
	"io"
	"strings"
	"time"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// Progress shows a resync while it is awaited. It is for one goroutine.
type Progress interface {
	// Show takes the newest state; the same one again when only time has passed.
	Show(r *vmreplicav1.Resync)
	// Note adds a sentence that stays.
	Note(format string, args ...any)
	// Close leaves what was shown last and ends everything that was started.
	Close()
}

// NewProgress shows on out: bars where it is a terminal, lines elsewhere.
func NewProgress(out io.Writer, terminal bool, now func() time.Time) Progress {
	if terminal {
		return newBars(out, now)
	}
	return &lines{out: out, now: now, steps: map[string]int{}}
}

// silence is the longest time without a line.
const silence = 30 * time.Second

// lines is progress where nobody watches a terminal: a line per phase and per 10 % of a disk, and every 30 s.
type lines struct {
	commit
	out   io.Writer
	now   func() time.Time
	last  time.Time
	phase string
	state vmreplicav1.ResyncState
	// steps are the tenths last printed, by disk, of the present comparing or merging.
	steps map[string]int
}

// Show implements Progress.
func (l *lines) Show(r *vmreplicav1.Resync) {
	now := l.now()
	phase := phaseOf(r, now)
	unseen := l.unseenCommit(r)
	changed, long := phase != l.phase, !l.last.IsZero() && now.Sub(l.last) >= silence
	if r.GetState() != l.state && moving(r) {
		l.steps = map[string]int{}
	}
	l.phase, l.state = phase, r.GetState()
	if unseen && moving(r) {
		l.line("%s: %s", r.GetVm(), committed)
	}
	// A phase that moves stands before its figures, an end after them.
	if changed && moving(r) {
		l.line("%s: %s", r.GetVm(), phase)
	}
	printed := l.disks(r, long && moving(r))
	if unseen && !moving(r) {
		l.line("%s: %s", r.GetVm(), committed)
	}
	if changed && !moving(r) {
		l.line("%s: %s", r.GetVm(), phase)
	}
	if long && !changed && !printed {
		l.line("%s: still %s%s", r.GetVm(), phase, caughtUp(r))
	}
}

// caughtUp is how much was sent while catching up; nothing in other states.
func caughtUp(r *vmreplicav1.Resync) string {
	if r.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_CATCHING_UP {
		return ""
	}
	return ", " + Size(caughtUpBytes(r)) + " sent"
}

func caughtUpBytes(r *vmreplicav1.Resync) (total int64) {
	for _, disk := range r.GetDisks() {
		total += disk.GetCaughtUpBytes()
	}
	return total
}

// disks adds a line for each disk that has passed another tenth, or all that are not at their end.
func (l *lines) disks(r *vmreplicav1.Resync, all bool) (printed bool) {
	for _, disk := range r.GetDisks() {
		done, whole := amount(r, disk)
		step := percent(done, whole) / 10
		if whole <= 0 || step == l.steps[disk.GetId()] && !(all && done < whole) {
			continue
		}
		l.steps[disk.GetId()] = step
		l.line("%s: disk %s: %s", r.GetVm(), disk.GetId(), diskLine(r, disk, l.now()))
		printed = true
	}
	return printed
}

// Note implements Progress.
func (l *lines) Note(format string, args ...any) { l.line(format, args...) }

// Close implements Progress.
func (l *lines) Close() {}

// line writes what is only news: that it cannot be written changes nothing.
func (l *lines) line(format string, args ...any) {
	l.last = l.now()
	fmt.Fprintln(l.out, Clean(fmt.Sprintf(format, args...)))
}

// committed is the phase that everybody waits for.
const committed = "committed: the replica has the new content"

// catchingUp is the phase in which what the machine wrote meanwhile is sent. Its rounds have no foretold end.
const catchingUp = "catching up with what was written meanwhile"

// commit remembers whether the commit was shown: a watch that sends the newest state alone may skip its phase.
type commit struct{ shown bool }

// unseenCommit says, once, that the resync has committed and that its present phase does not show it.
func (c *commit) unseenCommit(r *vmreplicav1.Resync) bool {
	if c.shown || r.GetCommitTime() == nil {
		return false
	}
	c.shown = true
	return r.GetState() != vmreplicav1.ResyncState_RESYNC_STATE_COMMITTED
}

// phaseOf is what a resync is doing, without figures.
func phaseOf(r *vmreplicav1.Resync, now time.Time) string {
	if r.GetSuspended() && !Ended(r) {
		return join(": ", "suspended", r.GetSuspendReason()) + "; resume it with: vmreplica resume " + r.GetVm()
	}
	merging := r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_MERGING
	if r.GetProblem() != "" && !Ended(r) {
		what := "waiting to try again"
		if merging {
			what = "merging on the replica; it waits"
		}
		return what + parenthesized(r.GetReason()) + ": " + sentences(r.GetProblem(), r.GetRemedy())
	}
	if again := r.GetNextAttemptTime(); again != nil && again.AsTime().After(now) && !Ended(r) {
		return "waiting until " + Moment(again.AsTime(), now) + " to try again" + parenthesized(r.GetReason())
	}
	switch r.GetState() {
	case vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED:
		if at := r.GetStartTime(); at != nil && at.AsTime().After(now) {
			return "scheduled for " + Moment(at.AsTime(), now)
		}
		return "waiting to begin"
	case vmreplicav1.ResyncState_RESYNC_STATE_COMPARING:
		return "comparing"
	case vmreplicav1.ResyncState_RESYNC_STATE_CATCHING_UP:
		if r.GetRounds() == 0 {
			return catchingUp
		}
		return fmt.Sprintf("%s, round %d", catchingUp, r.GetRounds())
	case vmreplicav1.ResyncState_RESYNC_STATE_COMMITTING:
		return "committing"
	case vmreplicav1.ResyncState_RESYNC_STATE_COMMITTED:
		return committed
	case vmreplicav1.ResyncState_RESYNC_STATE_MERGING:
		return "merging on the replica"
	case vmreplicav1.ResyncState_RESYNC_STATE_DONE:
		return "done"
	case vmreplicav1.ResyncState_RESYNC_STATE_CANCELLED:
		return "cancelled"
	case vmreplicav1.ResyncState_RESYNC_STATE_FAILED:
		return "failed"
	default:
		return Word(r.GetState())
	}
}

// parenthesized is a code behind a sentence; nothing for none.
func parenthesized(code string) string {
	if code == "" {
		return ""
	}
	return " (" + code + ")"
}

// sentences are what happened and what to do, each with its end.
func sentences(message, remedy string) string {
	text := strings.TrimSuffix(message, ".") + "."
	if remedy != "" {
		text += " " + strings.TrimSuffix(remedy, ".") + "."
	}
	return text
}

// moving says whether the state has figures that rise.
func moving(r *vmreplicav1.Resync) bool {
	return r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_COMPARING ||
		r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_MERGING
}

// amount is what is done of a disk in the present state, and the whole of it; 0 when that is not known.
func amount(r *vmreplicav1.Resync, disk *vmreplicav1.ResyncDisk) (done, whole int64) {
	progress := disk.GetProgress()
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_MERGING {
		return progress.GetMergedBytes(), progress.GetMergeTotalBytes()
	}
	if Ended(r) || progress == nil {
		return min(disk.GetBlocksCompared()*blockSize, disk.GetSizeBytes()), disk.GetSizeBytes()
	}
	return progress.GetComparedBytes(), disk.GetSizeBytes()
}

// diskLine is one disk's progress in words.
func diskLine(r *vmreplicav1.Resync, disk *vmreplicav1.ResyncDisk, now time.Time) string {
	done, whole := amount(r, disk)
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_MERGING {
		return fmt.Sprintf("%d%% of %s merged", percent(done, whole), Size(whole))
	}
	progress := disk.GetProgress()
	line := fmt.Sprintf("%d%% of %s compared, %s differing, %s sent", percent(done, whole), Size(whole),
		Size(max(progress.GetDifferingBytes(), disk.GetBytesDiffering())), Size(sent(disk)))
	for _, part := range pace(progress, now) {
		line += ", " + part
	}
	return line
}

// pace is how fast a disk is compared and when that ends, or since when nothing moves.
func pace(progress *vmreplicav1.TransferProgress, now time.Time) (parts []string) {
	if since := progress.GetStalledSince(); since != nil {
		return []string{"stalled for " + Span(max(0, now.Sub(since.AsTime())).Round(time.Second))}
	}
	if progress.GetRateBytesPerSecond() > 0 {
		parts = append(parts, Rate(progress.GetRateBytesPerSecond()))
	}
	if progress.GetEta() != nil {
		parts = append(parts, etaOf(progress.GetEta().AsDuration()))
	}
	return parts
}

// etaOf is an end that is foretold; one that is days away is not foretold to the second.
func etaOf(eta time.Duration) string {
	if eta >= 48*time.Hour {
		return "ETA " + coarse(eta)
	}
	return "ETA " + Span(eta.Round(time.Second))
}

// sent is what a disk has sent: the progress while there is one, the result at the end.
func sent(disk *vmreplicav1.ResyncDisk) int64 {
	return max(disk.GetProgress().GetWireSentBytes(), disk.GetWireBytesSent())
}
