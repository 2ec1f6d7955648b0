package vhdx_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
)

const mib = 1 << 20

func TestConformanceOfBases(t *testing.T) {
	for _, o := range []vhdx.Options{
		{BlockBytes: mib},
		{BlockBytes: 2 * mib, LogicalSectorSize: 4096},
		{},
		{BlockBytes: mib, Fixed: true},
		{Fixed: true, LogicalSectorSize: 4096},
		{BlockBytes: 32 * mib, Fixed: true},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			disktest.Base(t, subject(o, func(file durable.File, o vhdx.Options) (disk.Disk, error) {
				return vhdx.Create(file, o)
			}, func(file durable.File) (disk.Disk, error) { return vhdx.Open(file, durable.ReadWrite) }))
		})
	}
}

func TestConformanceOfLayers(t *testing.T) {
	for _, o := range []vhdx.Options{
		{}, {BlockBytes: mib}, {LogicalSectorSize: 4096, BlockBytes: mib}, {BlockBytes: 32 * mib}, {BlockBytes: 256 * mib},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			disktest.Layer(t, subject(o, func(file durable.File, o vhdx.Options) (disk.Disk, error) {
				return vhdx.CreateDifferencing(file, o)
			}, func(file durable.File) (disk.Disk, error) { return vhdx.OpenDifferencing(file, durable.ReadWrite) }))
		})
	}
}

// subject is files on the host, in memory. With sectors of 4096 bytes not all of the suite's sizes are disks; the
// histories have such sectors too.
func subject(
	o vhdx.Options, create func(durable.File, vhdx.Options) (disk.Disk, error), open func(durable.File) (disk.Disk, error),
) disktest.Subject {
	paths := make(map[disk.Disk]string)
	return disktest.Subject{
		Open: func(t *testing.T, size int64) disk.Disk {
			if size%max(int64(o.LogicalSectorSize), 512) != 0 {
				t.Skip("no disk with such sectors has this size")
			}
			path := filepath.Join(memoryDir(t), "disk")
			o.SizeBytes = size
			d, err := create(newFile(t, path), o)
			must(t, err)
			t.Cleanup(func() { d.Close() })
			paths[d] = path
			return d
		},
		Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
			must(t, d.Close())
			again, err := open(openFile(t, paths[d]))
			must(t, err)
			t.Cleanup(func() { again.Close() })
			paths[again] = paths[d]
			return again
		},
	}
}

// memoryDir is a directory in memory, where a sync costs nothing.
func memoryDir(t testing.TB) string {
	t.Helper()
	directory, err := os.MkdirTemp("/dev/shm", "vhdx-*")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

func newFile(t testing.TB, path string) durable.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	return durable.NewFile(file)
}

func openFile(t testing.TB, path string) durable.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	return durable.NewFile(file)
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
