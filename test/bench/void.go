package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"vmreplica/agent-primary/tracking"
	"vmreplica/internal/disk"
	"vmreplica/internal/durable"
	"vmreplica/internal/hrl"
	"vmreplica/internal/replication"
)

// void is an image of any size that holds nothing; its flushes are slow. What is measured over it is tracking alone.
type void struct {
	disk.Image
	size  int64
	flush time.Duration
}

func (v void) Size() int64                            { return v.size }
func (v void) LogicalSectorSize() int                 { return 512 }
func (v void) ReadAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (v void) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (v void) Unmap(_, _ int64) error                 { return nil }
func (v void) Flush() error                           { <-time.After(v.flush); return nil }
func (v void) Stamp() (disk.Stamp, error)             { return disk.Stamp{}, nil }
func (v void) Close() error                           { return nil }

// voids are the disks of a machine, with logs of their own in a directory of the bench.
type voids struct {
	dir   durable.Dir
	path  string
	disks []*tracking.Disk
	group *tracking.Group
}

func openVoids(ctx context.Context, b *bench, count int, size int64, flush time.Duration) (*voids, error) {
	path, err := os.MkdirTemp(b.dir, "void-")
	if err != nil {
		return nil, err
	}
	v := &voids{path: path}
	if v.dir, err = durable.OpenDir(path); err != nil {
		return nil, err
	}
	for i := range count {
		d, err := tracking.OpenLive(tracking.LiveOptions{
			ID: v.log(i), Image: void{size: size, flush: flush}, Logs: v.dir, Log: v.log(i),
			Known: hrl.Disk{Identity: replication.NewID()}, Lost: func(hrl.Loss) error { return nil },
		})
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		v.disks = append(v.disks, d)
	}
	v.group = tracking.NewGroup(v.disks, tracking.NewBudget(keepBytes))
	if _, err := v.group.Begin(ctx, replication.NewID()); err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *voids) log(index int) string { return string(rune('a'+index)) + ".hrl" }

// logBytes is the size of a disk's log, all of which is mapped.
func (v *voids) logBytes(index int) (int64, error) {
	info, err := os.Stat(filepath.Join(v.path, v.log(index)))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (v *voids) close() error {
	var all error
	for _, d := range v.disks {
		all = errors.Join(all, d.Close())
	}
	return errors.Join(all, v.dir.Close())
}
