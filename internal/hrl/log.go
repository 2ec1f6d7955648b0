package hrl

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// Log is the open log of one disk. Ranges are bytes of the disk, inside it. Mark, Touch, Marked and Next may be called
// concurrently with everything but Close; the others exclude each other. A method that answers an error other than
// ErrPending has made the log lost, durably where the error does not wrap ErrNotRecorded.
type Log struct {
	dir  durable.Dir
	name string
	// file is nil for a log in memory.
	file   durable.File
	mapped []byte
	size   int64

	live, epoch atomic.Pointer[bitmap]
	sent        *bitmap
	// first is the bitmap in areaA.
	first *bitmap

	// mu is held over changes of the header.
	mu sync.Mutex
	// header is what the file says; guarded by mu.
	header header
	// broken says that the file can no longer be written: nothing but its removal is tried; guarded by mu.
	broken bool
	// lost is nil while the log is exact. It is set after the header says so.
	lost atomic.Pointer[verdict]
}

// verdict is why a log is lost, and why that could not be recorded.
type verdict struct {
	Loss
	unrecorded error
}

// newLog is a log over a mapping.
func newLog(dir durable.Dir, name string, file durable.File, mapped []byte, h header) *Log {
	l := &Log{dir: dir, name: name, file: file, mapped: mapped, size: h.DiskSize, header: h}
	areas := layoutOf(h.DiskSize).areas
	maps := [3]*bitmap{}
	for i, a := range areas {
		maps[i] = &bitmap{
			words:   wordsOf(mapped[a.bits : a.bits+a.bitsBytes]),
			summary: wordsOf(mapped[a.summary : a.summary+a.summaryBytes]),
			bits:    a.count,
		}
	}
	l.first, l.sent = maps[areaA], maps[areaSent]
	l.live.Store(maps[h.Live])
	l.epoch.Store(maps[1-h.Live])
	if h.Lost.Cause != None {
		l.lost.Store(&verdict{Loss: h.Lost})
	}
	return l
}

// Size is the disk's size in bytes.
func (l *Log) Size() int64 { return l.size }

// Loss is why the log is lost; the zero Loss while it is exact.
func (l *Log) Loss() Loss {
	if found := l.lost.Load(); found != nil {
		return found.Loss
	}
	return Loss{}
}

// InMemory says that no file stands behind the log.
func (l *Log) InMemory() bool { return l.file == nil }

// Baseline is the instant since which every write is marked, where the log is exact.
func (l *Log) Baseline() replication.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.header.Baseline
}

// Opened is the log's open counter. Its owner records it before the disk is served and states it when the log is
// opened again: an older copy has a lower one.
func (l *Log) Opened() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.header.Opened
}

// Touch writes to the pages of the mapping that Mark of the range would write to and changes nothing, so that no
// page fault is taken where Mark is called.
func (l *Log) Touch(off, n int64) error {
	first, end := outward(off, n, BlockSize)
	return l.guard(func() { l.live.Load().touch(first, end) })
}

// Mark sets the live marks of every block that the range touches. n is 1 or more. The caller keeps Flip away
// meanwhile, and therefore a log that failed is not yet made lost here, which takes time: an error is what Failed is
// to be told as soon as Flip may come again.
func (l *Log) Mark(off, n int64) error {
	first, end := outward(off, n, BlockSize)
	return caught(func() { l.live.Load().set(first, end) })
}

// Failed makes the log lost to a fault of Mark.
func (l *Log) Failed(fault error) error { return l.Lose(l.faulted(fault)) }

func (l *Log) faulted(fault error) Loss {
	return lost(WriteFailed, "the log %s failed while it was used: %v", l.name, fault)
}

// Flip makes the live marks the epoch. The caller keeps Mark away meanwhile; it takes no time that depends on
// anything. ErrPending while the epoch has marks.
func (l *Log) Flip() error {
	if n := l.EpochBytes(); n != 0 {
		return fmt.Errorf("%w: the epoch has %d bytes", ErrPending, n)
	}
	live, epoch := l.live.Load(), l.epoch.Load()
	l.live.Store(epoch)
	l.epoch.Store(live)
	return nil
}

// Marked says whether a block that the range touches is in the epoch. n is 1 or more.
func (l *Log) Marked(off, n int64) (marked bool, err error) {
	first, end := outward(off, n, BlockSize)
	err = l.guard(func() { marked = l.epoch.Load().any(first, end) })
	return marked, err
}

// Next is the first run of blocks of the epoch in [off, end) of the disk, at most longest bytes of it, which is a
// multiple of BlockSize; n is 0 when there is none. off is a multiple of BlockSize.
func (l *Log) Next(off, end, longest int64) (at, n int64, err error) {
	var first, count int64
	err = l.guard(func() {
		first, count = l.epoch.Load().next(off/BlockSize, ceilDiv(end, BlockSize), longest/BlockSize)
	})
	at = first * BlockSize
	return at, min(count*BlockSize, l.size-at), err
}

// Sent moves the blocks of the epoch that lie in the range whole to sent. The marks there are set before those here
// are cleared.
func (l *Log) Sent(off, n int64) error {
	first, end := inward(off, n, l.size)
	if first >= end {
		return nil
	}
	return l.guard(func() {
		epoch := l.epoch.Load()
		for at, count := epoch.next(first, end, end); count > 0; at, count = epoch.next(at+count, end, end) {
			l.sent.set(at/blocksPerSent, ceilDiv(at+count, blocksPerSent))
			epoch.clear(at, at+count)
		}
		if epoch.count.Load() == 0 {
			epoch.tidy()
		}
	})
}

// Forget clears the sent marks: the replica has acknowledged the commit that holds them. ErrPending while the epoch
// has marks.
func (l *Log) Forget() error {
	if n := l.EpochBytes(); n != 0 {
		return fmt.Errorf("%w: %d bytes of the epoch were not sent", ErrPending, n)
	}
	return l.guard(l.sent.wipe)
}

// ReturnEpoch gives the blocks of the epoch back to live. Marks may be set meanwhile.
func (l *Log) ReturnEpoch() error {
	return l.guard(func() { l.fold(l.epoch.Load(), 1) })
}

// Restore gives the epoch and everything that was sent back to live.
func (l *Log) Restore() error {
	return l.guard(func() {
		l.fold(l.epoch.Load(), 1)
		l.fold(l.sent, blocksPerSent)
	})
}

// fold adds the marks of from, each of which stands for so many blocks, to live and then clears them.
func (l *Log) fold(from *bitmap, blocks int64) {
	live := l.live.Load()
	for first, count := from.next(0, from.bits, from.bits); count > 0; first, count = from.next(first+count, from.bits, from.bits) {
		live.set(first*blocks, min((first+count)*blocks, live.bits))
	}
	from.wipe()
}

// LiveBytes is how much of the disk is marked live, in whole blocks.
func (l *Log) LiveBytes() int64 { return l.live.Load().count.Load() * BlockSize }

// EpochBytes is how much of the epoch is not sent, in whole blocks.
func (l *Log) EpochBytes() int64 { return l.epoch.Load().count.Load() * BlockSize }

// SentBytes is how much was sent and is not acknowledged, in units of SentSize.
func (l *Log) SentBytes() int64 { return l.sent.count.Load() * SentSize }

// Begin makes the log exact from a new baseline: every write from now on is marked, or makes it lost anew. The caller
// then flips, waits for the writes of before, and calls Discard. A failure of the file is answered and makes the log lost.
func (l *Log) Begin(baseline replication.ID) error {
	l.mu.Lock()
	err := l.change(func(h *header) { h.Baseline, h.Lost = baseline, Loss{} })
	if err == nil {
		l.lost.Store(nil)
	}
	l.mu.Unlock()
	if err != nil {
		return l.failed(err)
	}
	return nil
}

// Discard forgets what is in the epoch and in sent, because everything is compared, and only what is live counts.
func (l *Log) Discard() error {
	return l.guard(func() { l.epoch.Load().wipe(); l.sent.wipe() })
}

// Follow names the baseline anew, once what was begun is committed.
func (l *Log) Follow(baseline replication.ID) error {
	return l.changed(func(h *header) { h.Baseline = baseline })
}

// Close folds everything into live and closes the log cleanly: nothing else will write to the image, whose stamp this
// is. An error leaves the log as it would be after a kill, or lost.
func (l *Log) Close(stamp disk.Stamp) error {
	err := l.settle(stamp)
	return errors.Join(err, l.Abandon())
}

func (l *Log) settle(stamp disk.Stamp) error {
	if l.file == nil || l.Loss().Cause == WriteFailed {
		return nil
	}
	if err := l.Restore(); err != nil {
		return err
	}
	var digest uint64
	if err := l.guard(func() { digest = l.live.Load().digest() }); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return l.failed(err)
	}
	area := areaA
	if l.live.Load() != l.first {
		area = areaB
	}
	return l.changed(func(h *header) { h.Clean, h.Stamp, h.Digest, h.Live = true, stamp, digest, area })
}

// Abandon lets the file go and leaves it as a kill would. The log must not be used again.
func (l *Log) Abandon() error {
	err := unmap(l.mapped)
	if l.file != nil {
		err = errors.Join(err, l.file.Close())
	}
	return err
}
