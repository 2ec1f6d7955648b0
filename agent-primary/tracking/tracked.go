package tracking

import (
	"context"
	"iter"
	"sync"

	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// tracked is a running disk as a resync reads it: live, while the machine writes. What a pass read too early is marked
// and follows in rounds.
type tracked struct {
	*Disk
	group *Group

	mu sync.Mutex
	// known are the extents of the window that was walked last; guarded by mu.
	known window
}

// Source is a disk of the group as a resync reads it. It does not close the disk. Its Cut is a Begin: all that is
// marked until then is forgotten.
func (g *Group) Source(index int) Source { return &tracked{Disk: g.disks[index], group: g} }

// Cut implements Source.
func (t *tracked) Cut(ctx context.Context) (Cut, error) {
	cuts, err := t.group.Begin(ctx, replication.NewID(), t.Disk)
	if err != nil {
		return Cut{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known = window{}
	return cuts[0], nil
}

// Continuous implements Source: the log has been exact since the cut.
func (t *tracked) Continuous(since Cut) error {
	log := t.log.Load()
	if loss := log.Loss(); loss.Cause != hrl.None {
		return failure.New(failure.Precondition, failure.ReasonImageChanged, "tracking is %s", loss).On("", t.id)
	}
	if baseline := log.Baseline(); since.Since == "" || baseline != since.Since {
		return failure.New(failure.Precondition, failure.ReasonImageChanged,
			"writes are tracked since %q and not since this cut, %q", baseline, since.Since).On("", t.id)
	}
	return nil
}

// Close implements Source. The machine goes on.
func (t *tracked) Close() error { return nil }

// windowBytes is how much of an image is asked for its extents at a time, windowExtents how many are remembered.
const (
	windowBytes   = 1 << 30
	windowExtents = 4096
)

// window is a range of the disk with the extents that it had when it was walked; what follows after the last, up to the
// end, is taken for data.
type window struct {
	off, end int64
	extents  []disk.Extent
}

// Extents implements Source. An image may have to be synced to be asked, so that it is asked for a large window at
// once; a hole that the machine wrote to since is marked, and follows.
func (t *tracked) Extents(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		if err := disk.CheckRange(t.Size(), off, n); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		for end := off + n; off < end; {
			e, err := t.extentAt(off)
			if err != nil {
				yield(disk.Extent{}, err)
				return
			}
			e.Length = min(e.End(), end) - off
			e.Offset = off
			if !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// extentAt is the extent that holds off.
func (t *tracked) extentAt(off int64) (disk.Extent, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if off < t.known.off || off >= t.known.end {
		if err := t.walk(off / windowBytes * windowBytes); err != nil {
			return disk.Extent{}, err
		}
	}
	last := t.known.off
	for _, e := range t.known.extents {
		if off < e.End() {
			return e, nil
		}
		last = e.End()
	}
	return disk.Extent{Offset: last, Length: t.known.end - last, Kind: disk.Data}, nil
}

// walk asks the image for a window. The caller holds mu.
func (t *tracked) walk(off int64) error {
	next := window{off: off, end: min(off+windowBytes, t.Size()), extents: t.known.extents[:0]}
	t.known = window{}
	for e, err := range t.Disk.Extents(off, next.end-off) {
		if err != nil {
			return err
		}
		if next.extents = append(next.extents, e); len(next.extents) == windowExtents {
			break
		}
	}
	t.known = next
	return nil
}
