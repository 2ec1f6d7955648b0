package nbd

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"sync"

	"vmreplica/internal/disk"
)

// Export is a disk as the server sees it. Methods are called concurrently, by all connections to it; ranges lie
// inside the disk and are not empty. An Export is comparable (a pointer): what the server remembers of it, it
// remembers by that value.
//
// Errors reach the client as ENOSPC (also for EDQUOT and EFBIG), EPERM (fs.ErrPermission, EROFS), EINVAL
// (disk.ErrRange, EINVAL) or, all others, EIO.
type Export interface {
	// Size is the disk's size in bytes. It does not change.
	Size() int64
	// ReadOnly exports refuse everything that would write with EPERM; the server sees to it. It does not change.
	ReadOnly() bool
	// ReadAt fills p or returns an error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes p whole or returns an error. It does not keep p.
	WriteAt(p []byte, off int64) (int, error)
	// Zero makes the range, up to 4 GiB, read as zeros.
	Zero(off, n int64, o ZeroOptions) error
	// Trim says that the range, up to 4 GiB, is no longer needed. An error wrapping errors.ErrUnsupported is no
	// error to the client.
	Trim(off, n int64) error
	// Flush makes every write that returned before it durable. It is not called beside itself, nor ever again
	// once it failed.
	Flush() error
	// Extents yields what disk.Reader's does; none is Absent.
	Extents(off, n int64) iter.Seq2[disk.Extent, error]
}

// ZeroOptions say how a range is zeroed.
type ZeroOptions struct {
	// KeepSpace leaves the range allocated, so that a later write cannot fail for want of space.
	KeepSpace bool
	// Fast refuses at once, with an error wrapping errors.ErrUnsupported and nothing changed, what would take as
	// long as writing the zeros.
	Fast bool
}

// Describer is an Export that can say what it is, in a sentence shown by clients that ask; 4096 bytes at most.
type Describer interface{ Description() string }

// errFlushFailed stays with an Export whose Flush failed.
var errFlushFailed = errors.New("an earlier flush failed")

// volume is what the connections to one Export share.
type volume struct {
	Export
	// refs counts the connections; guarded by volumes.mu.
	refs int

	mu sync.Mutex
	// running is the flush under way, next the one that begins after it; both guarded by mu.
	running, next *flushRound
	// failed is set once and guarded by mu.
	failed bool
}

// flushRound is one Export.Flush and all who wait for it: everybody who came before it began.
type flushRound struct {
	done chan struct{}
	err  error // valid once done is closed
}

// flush returns after an Export.Flush that began after flush was called.
func (v *volume) flush() error {
	v.mu.Lock()
	if round := v.next; round != nil {
		v.mu.Unlock()
		<-round.done
		return round.err
	}
	before := v.running
	round := &flushRound{done: make(chan struct{})}
	v.next = round
	v.mu.Unlock()

	defer close(round.done)
	if before != nil {
		<-before.done
	}
	if v.begin(round) {
		round.err = v.Export.Flush()
		v.end(round.err)
	} else {
		round.err = errFlushFailed
	}
	return round.err
}

// begin makes round the running one, which nobody joins any more; false when there is nothing to be flushed again.
func (v *volume) begin(round *flushRound) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next, v.running = nil, round
	return !v.failed
}

func (v *volume) end(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed = v.failed || err != nil
}

func (v *volume) hasFailed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.failed
}

// volumes holds a volume for each Export in use, and for good for each whose Flush failed.
type volumes struct {
	mu    sync.Mutex
	known map[Export]*volume
}

func (s *volumes) take(export Export) (*volume, error) {
	if !reflect.ValueOf(export).Comparable() {
		return nil, fmt.Errorf("an export of type %T cannot be told from another", export)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, found := s.known[export]
	if !found {
		v = &volume{Export: export}
		s.known[export] = v
	}
	v.refs++
	return v, nil
}

func (s *volumes) giveBack(v *volume) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.refs--
	if v.refs == 0 && !v.hasFailed() {
		delete(s.known, v.Export)
	}
}
