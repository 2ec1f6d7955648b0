package vhd_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

// kinds are what is made here: each with its options.
var kinds = map[string]vhd.Options{
	"fixed":           {Fixed: true},
	"dynamic 512 KiB": {BlockBytes: 512 << 10},
	"dynamic 2 MiB":   {BlockBytes: 2 << 20},
}

func TestConformance(t *testing.T) {
	for name, options := range kinds {
		t.Run(name, func(t *testing.T) {
			s := subject(func(file durable.File, size int64) (disk.Disk, error) {
				options.SizeBytes = size
				return vhd.Create(file, options)
			}, func(file durable.File) (disk.Disk, error) { return vhd.Open(file, durable.ReadWrite) })
			s.Holes = true
			disktest.Base(t, s)
		})
	}
	t.Run("differencing", func(t *testing.T) {
		disktest.Layer(t, subject(func(file durable.File, size int64) (disk.Disk, error) {
			return vhd.CreateDifferencing(file, vhd.Options{SizeBytes: size})
		}, func(file durable.File) (disk.Disk, error) { return vhd.OpenDifferencing(file, durable.ReadWrite) }))
	})
}

// subject makes and opens disks in files of the host.
func subject(create func(durable.File, int64) (disk.Disk, error), open func(durable.File) (disk.Disk, error)) disktest.Subject {
	paths := make(map[disk.Disk]string)
	return disktest.Subject{
		Open: func(t *testing.T, size int64) disk.Disk {
			path := filepath.Join(t.TempDir(), "disk")
			d, err := create(newFile(t, path), size)
			must(t, err)
			t.Cleanup(func() { d.Close() })
			paths[d] = path
			return d
		},
		Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
			must(t, d.Close())
			again, err := open(hostFile(t, paths[d], durable.ReadWrite))
			must(t, err)
			t.Cleanup(func() { again.Close() })
			paths[again] = paths[d]
			return again
		},
	}
}

// newFile makes a file of the host.
func newFile(t testing.TB, path string) durable.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	return durable.NewFile(file)
}

func hostFile(t testing.TB, path string, mode durable.Mode) durable.File {
	t.Helper()
	flags := os.O_RDONLY
	if mode == durable.ReadWrite {
		flags = os.O_RDWR
	}
	file, err := os.OpenFile(path, flags, 0)
	must(t, err)
	return durable.NewFile(file)
}

// memoryDir is a directory in memory, where a sync costs nothing.
func memoryDir(t testing.TB) string {
	t.Helper()
	directory, err := os.MkdirTemp("/dev/shm", "vhd-*")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
