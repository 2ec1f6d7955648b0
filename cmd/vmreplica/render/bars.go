package render

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// IsTerminal says whether out is one that has room to draw: a terminal may be without a size.
func IsTerminal(out io.Writer) bool {
	file, ok := out.(interface{ Fd() uintptr })
	if !ok || !cwriter.IsTerminal(int(file.Fd())) {
		return false
	}
	width, height, err := cwriter.GetSize(int(file.Fd()))
	return err == nil && width > 0 && height > 0
}

// bars is progress on a terminal: a bar for each disk, and above them the phases.
type bars struct {
	commit
	now     func() time.Time
	box     *mpb.Progress
	phase   string
	ordered []*bar
}

// bar is one thing's. Its texts are drawn by the library's goroutine.
type bar struct {
	*mpb.Bar
	name        string
	left, right atomic.Pointer[string]
}

func newBars(out io.Writer, now func() time.Time) *bars {
	return &bars{now: now, box: mpb.New(mpb.WithOutput(out), mpb.WithAutoRefresh())}
}

// Show implements Progress.
func (b *bars) Show(r *vmreplicav1.Resync) {
	if b.unseenCommit(r) {
		b.Note("%s: %s", r.GetVm(), committed)
	}
	if phase := phaseOf(r, b.now()); phase != b.phase {
		b.phase = phase
		b.Note("%s: %s", r.GetVm(), phase)
	}
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_SCHEDULED {
		return
	}
	for i, disk := range r.GetDisks() {
		done, whole := amount(r, disk)
		if i == len(b.ordered) {
			b.add(disk.GetId())
		}
		if whole > 0 && i < len(b.ordered) {
			b.ordered[i].show(r, disk, done, whole, b.now())
		}
	}
}

// add makes the next bar.
func (b *bars) add(disk string) {
	if added := newBar(b.box, len(b.ordered), disk); added != nil {
		b.ordered = append(b.ordered, added)
	}
}

// newBar makes a bar below those of lower priority; nil when the library adds none, as after the terminal went away.
func newBar(box *mpb.Progress, priority int, name string) *bar {
	added := &bar{name: name}
	empty := ""
	added.left.Store(&empty)
	added.right.Store(&empty)
	text := func(of *atomic.Pointer[string]) decor.Decorator {
		return decor.Any(func(decor.Statistics) string { return *of.Load() }, decor.WCSyncSpaceR)
	}
	made, err := box.Add(0, mpb.BarStyle().Build(), mpb.BarPriority(priority),
		mpb.PrependDecorators(text(&added.left)), mpb.AppendDecorators(text(&added.right)))
	if err != nil {
		return nil
	}
	added.Bar = made
	return added
}

func (b *bar) show(r *vmreplicav1.Resync, disk *vmreplicav1.ResyncDisk, done, whole int64, now time.Time) {
	b.draw(fmt.Sprintf("%s %d%%", Clean(b.name), percent(done, whole)), barText(r, disk, done, now), done, whole)
}

func (b *bar) draw(left, right string, done, whole int64) {
	b.left.Store(&left)
	b.right.Store(&right)
	b.SetTotal(whole, false)
	b.SetCurrent(done)
}

// barText stands behind a bar: rate, ETA, compared and sent.
func barText(r *vmreplicav1.Resync, disk *vmreplicav1.ResyncDisk, done int64, now time.Time) string {
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_MERGING {
		return Size(done) + " merged"
	}
	if r.GetState() == vmreplicav1.ResyncState_RESYNC_STATE_CATCHING_UP {
		return Size(disk.GetCaughtUpBytes()) + " caught up"
	}
	parts := append(pace(disk.GetProgress(), now), fmt.Sprintf("compared %s sent %s", Size(done), Size(sent(disk))))
	return strings.Join(parts, " ")
}

// Note implements Progress.
func (b *bars) Note(format string, args ...any) {
	// What cannot be written is only news.
	_, _ = io.WriteString(b.box, Clean(fmt.Sprintf(format, args...))+"\n")
}

// Close implements Progress.
func (b *bars) Close() {
	for _, bar := range b.ordered {
		bar.Abort(false)
	}
	b.box.Wait()
}
