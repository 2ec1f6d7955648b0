package durabletest

import (
	"errors"
	"io/fs"
	"sync"
	"syscall"

	"vmreplica/internal/durable"
)

// Recorder is a host in memory that remembers in which order it was changed. Its methods may be called
// concurrently.
type Recorder struct {
	mu sync.Mutex
	// start is what is durable before the log, live what a running program sees.
	start, live *image
	log         []Op
	marks       []mark
	clock       int64
	// opened counts the handles of each file: one without a name keeps its space while it is open.
	opened map[int]int
	// named is each file's present name, for the trace.
	named    map[int]string
	newest   int
	capacity int64
	drop     func(Op) bool
	// failedDirs holds the first sync error of each directory.
	failedDirs map[string]error
	faults     faults
}

type mark struct {
	position int
	value    any
}

// New is an empty host.
func New() *Recorder { return restarted(newImage(), 0) }

// restarted is a host that holds image, all of it durable.
func restarted(start *image, clock int64) *Recorder {
	r := &Recorder{
		start: start, live: start.clone(), clock: clock, capacity: -1,
		opened: map[int]int{}, named: map[int]string{}, failedDirs: map[string]error{},
	}
	for name, number := range start.entries {
		if number != directory {
			r.named[number] = name
			r.newest = max(r.newest, number)
		}
	}
	return r
}

// Dir is the host's root.
func (r *Recorder) Dir() durable.Dir { return &dir{recorder: r, base: "."} }

// At is the directory name as a tree of its own, made when there is none: what OpenDir is on a host.
func (r *Recorder) At(name string) (durable.Dir, error) {
	if err := r.Dir().Mkdir(name); err != nil {
		return nil, err
	}
	return &dir{recorder: r, base: name}, nil
}

// Mark says that the code under test has promised value by now. A crash from here on carries it.
func (r *Recorder) Mark(value any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, mark{len(r.log), value})
}

// SetCapacity bounds the space that all files may take, in bytes of whole 4 KiB pages. ENOSPC beyond; negative
// is no bound.
func (r *Recorder) SetCapacity(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.capacity = bytes
}

// Used is the space that all files take, in bytes.
func (r *Recorder) Used() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live.space()
}

// Drop seeds a mutant: a Sync or SyncDir that matches is answered nil, neither done nor recorded.
func (r *Recorder) Drop(matches func(Op) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop = matches
}

// Step records one atomic durable step that sets key to value, or answers the fault that was asked for. After
// one that is not ENOSPC the step is in doubt: a restart finds it done or not. value must not be changed after.
func (r *Recorder) Step(key, description string, value any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.do(Op{Kind: Step, Name: description, key: key, value: value})
}

// Value is what the last step set key to; nil when none did.
func (r *Recorder) Value(key string) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live.values[key]
}

// do does and records op, or fails it; mu is held.
func (r *Recorder) do(op Op) error {
	if (op.Kind == Sync || op.Kind == SyncDir) && r.drop != nil && r.drop(op) {
		return nil
	}
	r.clock++
	op.at = r.clock
	op.Err = r.faults.next()
	if op.Err == nil && !r.fits(&op) {
		op.Err = syscall.ENOSPC
	}
	if op.Err != nil {
		op.data = op.data[:shortened(&op)]
	}
	if op.Err == nil || len(op.data) > 0 {
		r.live.apply(&op, part{})
	}
	r.rename(&op)
	r.log = append(r.log, op)
	if op.Err != nil {
		return &fs.PathError{Op: op.Kind.String(), Path: op.Name, Err: op.Err}
	}
	return nil
}

// fits says whether there is room for op.
func (r *Recorder) fits(op *Op) bool {
	if r.capacity < 0 || op.Kind != Write && op.Kind != Allocate && op.Kind != Zero {
		return true
	}
	file := r.live.files[op.file].clone()
	before := file.pages.space()
	file.allocate(op.Offset, op.Len)
	return r.live.space()+(file.pages.space()-before)*pageSize <= r.capacity
}

// rename keeps track of the files' names, and lets go of those that have none and are not open.
func (r *Recorder) rename(op *Op) {
	if op.Err != nil || !op.ofNames() {
		return
	}
	r.newest = max(r.newest, op.file)
	switch op.Kind {
	case Create:
		r.named[op.file] = op.Name
	case Rename:
		r.named[op.file] = op.To
		r.live.forget(r.isOpen)
	case Remove:
		r.live.forget(r.isOpen)
	}
}

func (r *Recorder) isOpen(file int) bool { return r.opened[file] > 0 }

// isFull says whether err is want of space, after which the failed operation has left nothing behind.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
