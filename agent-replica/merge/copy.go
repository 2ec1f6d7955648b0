package merge

import (
	"context"
	"math"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/disk"
	"vmreplica/internal/failure"
)

const (
	// bufferBytes is how much is copied at a time.
	bufferBytes = 4 << 20
	// releaseBytes is how much of the balloon is given back at a time, before it is needed.
	releaseBytes = 64 << 20
)

// position is how far the merge of one layer had come: everything before offset is in its target, durably.
type position struct {
	layer  string
	offset int64
	merged int64
	// data is what of merged is content.
	data int64
}

// copier copies one layer into its target, the base or another layer.
type copier struct {
	merger         *Merger
	vm, disk, file string
	// name tells this layer from every other that was or will be.
	name  string
	layer disk.Layer
	// target is a layer itself with over.
	target disk.Disk
	over   bool
	// total is what the layer holds and merged what of it is copied, in bytes; data is what of the rest is content, which
	// alone takes space of the target.
	total, merged, data int64
	// held is the most that the balloon can have yet.
	held int64
}

// measure counts what the layer holds.
func (c *copier) measure() error {
	for extent, err := range c.layer.Extents(0, c.layer.Size()) {
		if err != nil {
			return err
		}
		if extent.Kind != disk.Absent {
			c.total += extent.Length
		}
		if extent.Kind == disk.Data {
			c.data += extent.Length
		}
	}
	c.held = math.MaxInt64
	return nil
}

// copy writes what the layer holds into the target and flushes it. When space runs out, what was written is flushed
// and its place remembered, so that the next attempt goes on there.
func (c *copier) copy(ctx context.Context) error {
	start := c.merger.resumeAt(c.vm, c.disk, c.name)
	c.merged = start.merged
	whole := c.data
	c.data -= start.data
	c.merger.progress(c)
	reached, err := c.copyFrom(ctx, start.offset)
	if err != nil && failure.Find(storage.Failure(err)).Reason != failure.ReasonStorageFull {
		return err
	}
	if flushErr := c.target.Flush(); flushErr != nil {
		return finalError(flushErr)
	}
	if err != nil {
		c.merger.remember(c.vm, c.disk, position{
			layer: c.name, offset: reached, merged: c.merged, data: whole - c.data,
		})
		return err
	}
	c.merger.forget(c.vm, c.disk)
	return nil
}

// finalError is a failed sync: not even a full storage may be waited out then.
func finalError(err error) error {
	return failure.New(failure.Internal, failure.ReasonStorageFailed, "what a layer was merged into could not be made durable: %w", err).
		Try("Look into the host's log for errors of the storage, then restart the agent; the merge is done again.")
}

// copyFrom copies from off to the end and answers how far it came.
func (c *copier) copyFrom(ctx context.Context, off int64) (reached int64, err error) {
	var buffer []byte
	reached = off
	for extent, err := range c.layer.Extents(off, c.layer.Size()-off) {
		if err != nil {
			return reached, err
		}
		if extent.Kind == disk.Absent {
			reached = extent.End()
			continue
		}
		if extent.Kind == disk.Data && buffer == nil {
			buffer = make([]byte, min(bufferBytes, c.layer.Size()))
		}
		for part := range pieces(extent) {
			if ctx.Err() != nil {
				return reached, ctx.Err()
			}
			if err := c.copyPart(part, buffer); err != nil {
				return reached, err
			}
			reached = part.End()
			c.merged += part.Length
			c.merger.progress(c)
		}
	}
	return reached, nil
}

// pieces are the parts of an extent that are copied, or looked at for an end, one at a time.
func pieces(extent disk.Extent) func(yield func(disk.Extent) bool) {
	step := int64(bufferBytes)
	if extent.Kind != disk.Data {
		step = 1 << 30
	}
	return func(yield func(disk.Extent) bool) {
		for off := extent.Offset; off < extent.End(); off += step {
			part := disk.Extent{Offset: off, Length: min(step, extent.End()-off), Kind: extent.Kind}
			if !yield(part) {
				return
			}
		}
	}
}

func (c *copier) copyPart(part disk.Extent, buffer []byte) error {
	switch part.Kind {
	case disk.Zero:
		return c.zero(part)
	case disk.Unmapped:
		return c.target.Unmap(part.Offset, part.Length)
	}
	if err := c.deflate(); err != nil {
		return err
	}
	data := buffer[:part.Length]
	if _, err := c.layer.ReadAt(data, part.Offset); err != nil {
		return err
	}
	if _, err := c.target.WriteAt(data, part.Offset); err != nil {
		return err
	}
	c.data -= part.Length
	return nil
}

// zero makes zeros of what of the target is none: zeros take no space that it did not have. What a layer leaves to what
// is below it is hidden by them.
func (c *copier) zero(part disk.Extent) error {
	for extent, err := range c.target.Extents(part.Offset, part.Length) {
		if err == nil && (extent.Kind == disk.Data || extent.Kind == disk.Absent) {
			err = c.target.Zero(extent.Offset, extent.Length)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deflate gives the balloon's room back some steps before it is needed, and keeps what the rest can take: its content,
// and no more than the target lacks, though it may lack much of what comes first.
func (c *copier) deflate() error {
	keep := c.data
	if allocated, known := c.target.AllocatedBytes(); known {
		keep = chain.MergeRoom(c.target.Size(), c.data, allocated)
	}
	keep = max(0, keep-releaseBytes)
	if c.held-keep < releaseBytes/2 && (keep > 0 || c.held == 0) {
		return nil
	}
	c.held = keep
	return c.merger.config.Space.Balloon(chain.BalloonFile(c.file)).ShrinkTo(keep)
}

func (m *Merger) resumeAt(vm, diskID, layer string) position {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found := m.resume[vm+"/"+diskID]; found.layer == layer {
		return found
	}
	return position{layer: layer}
}

func (m *Merger) remember(vm, diskID string, at position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resume[vm+"/"+diskID] = at
}

func (m *Merger) forget(vm, diskID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.resume, vm+"/"+diskID)
}

func (m *Merger) progress(c *copier) {
	m.mu.Lock()
	defer m.mu.Unlock()
	status := m.status(c.vm)
	status.Disk, status.Merged, status.Total = c.disk, c.merged, c.total
}
