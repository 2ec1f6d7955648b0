package vhdx

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
)

// virtualDisk is an open file: what an Image and a Layer have in common. Its methods may be called concurrently;
// writes of overlapping ranges have no order among themselves.
type virtualDisk struct {
	container
	mode durable.Mode

	// flushing is held over a Flush, one at a time; it guards log.
	flushing sync.Mutex
	log      logWriter

	// session is held while the header changes, and guards it. begun says that it has this session's DataWriteGuid,
	// touched that it has its FileWriteGuid.
	session sync.Mutex
	begun   atomic.Bool
	touched bool

	unsynced durable.Unsynced

	// mu guards what follows. A page that is not in memory is read under it, and the file is made longer.
	mu     sync.Mutex
	failed error // the first error of a Flush or of a header: final
	pages  pageCache
	// end is where the file ends, and where the next block goes.
	end int64
	// free are places of blocks that may be used again: they are zeros. freed become so with the next Flush.
	free, freed []int64
}

// Image is an open base: a fixed or a dynamic VHDX file.
type Image struct{ virtualDisk }

// Layer is an open differencing VHDX file.
type Layer struct{ virtualDisk }

var (
	_ disk.Image      = (*Image)(nil)
	_ disk.Identified = (*Image)(nil)
	_ disk.Layer      = (*Layer)(nil)
	_ disk.Stamper    = (*Layer)(nil)
	_ disk.Identified = (*Layer)(nil)
)

// Open opens a base. A log that its last user left is replayed, in memory when mode is ReadOnly, into the file
// otherwise. Failures: class Corrupt for what is damaged or was never finished, Unsupported for what the format
// allows and this package does not know, Precondition for a differencing file, with its parent. An error leaves the
// file open.
func Open(file durable.File, mode durable.Mode) (*Image, error) {
	c, err := inspect(file)
	if err != nil {
		return nil, err
	}
	if c.layer {
		return nil, notABase(c.metadata.locator.parent())
	}
	i := &Image{}
	return i, i.start(c, mode)
}

// OpenDifferencing opens a differencing file as Open does a base. The parent is not opened.
func OpenDifferencing(file durable.File, mode durable.Mode) (*Layer, error) {
	c, err := inspect(file)
	if err != nil {
		return nil, err
	}
	if !c.layer {
		return nil, notALayer()
	}
	l := &Layer{}
	return l, l.start(c, mode)
}

// start makes the disk usable, and replays into the file when it may.
func (v *virtualDisk) start(c *container, mode durable.Mode) error {
	v.container, v.mode, v.end = *c, mode, c.fileSize
	v.pages = newPageCache(v.readPage)
	v.log = logWriter{file: v.file, ring: v.ring, oldest: -1}
	v.unsynced.Add(0, math.MaxInt64)
	if mode == durable.ReadOnly {
		return nil
	}
	if err := v.replay(); err != nil {
		return err
	}
	size, err := v.file.Size()
	if err != nil {
		return fmt.Errorf("measure the VHDX file: %w", err)
	}
	if v.end = roundUp(size, mib); v.end > size {
		if err := v.file.Truncate(v.end); err != nil {
			return fmt.Errorf("round the VHDX file up to whole MiB: %w", err)
		}
	}
	return nil
}

// Size is the disk's size in bytes.
func (v *virtualDisk) Size() int64 { return v.size }

// AllocatedBytes is the space that the file takes on its filesystem.
func (v *virtualDisk) AllocatedBytes() (int64, bool) { return durable.Allocated(v.file) }

// LogicalSectorSize is 512 or 4096, as the file says.
func (v *virtualDisk) LogicalSectorSize() int { return int(v.sector) }

// Identity is the file's DataWriteGuid.
func (v *virtualDisk) Identity() disk.Identity {
	v.session.Lock()
	defer v.session.Unlock()
	return v.header.dataWrite
}

// Stamp ends the log, syncs and describes the file; errors.ErrUnsupported for one without a descriptor. Close
// changes nothing after it unless something was written between.
func (v *virtualDisk) Stamp() (disk.Stamp, error) {
	if err := v.settle(); err != nil {
		return disk.Stamp{}, err
	}
	fd, ok := v.file.Fd()
	if !ok {
		return disk.Stamp{}, fmt.Errorf("describe the VHDX file: %w", errors.ErrUnsupported)
	}
	return disk.StampOf(fd)
}

// Close flushes, ends the log and closes the file. After an error, as after a crash, the log stays and is replayed
// by whoever opens the file next.
func (v *virtualDisk) Close() error { return errors.Join(v.settle(), v.file.Close()) }
