package qcow2_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// clusterSizes are the smallest, the largest, and the common ones.
var clusterSizes = []int64{512, 4 << 10, 64 << 10, 2 << 20}

func TestImageConformance(t *testing.T) {
	for _, size := range clusterSizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			paths := make(map[disk.Disk]string)
			disktest.Base(t, disktest.Subject{
				Open: func(t *testing.T, bytes int64) disk.Disk {
					path := filepath.Join(memoryDir(t), "image")
					d := createImage(t, path, qcow2.ImageOptions{SizeBytes: bytes, ClusterBytes: size})
					paths[d] = path
					return d
				},
				Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
					must(t, d.Close())
					again := openImage(t, paths[d], durable.ReadWrite)
					paths[again] = paths[d]
					return again
				},
				// Clusters below a page of the host give no space back one by one.
				Holes: size >= 4<<10 && size <= 64<<10,
			})
		})
	}
}

func createImage(t testing.TB, path string, options qcow2.ImageOptions) *qcow2.Image {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	i, err := qcow2.CreateImage(durable.NewFile(file), options)
	must(t, err)
	t.Cleanup(func() { i.Close() })
	return i
}

func openImage(t testing.TB, path string, mode durable.Mode) *qcow2.Image {
	t.Helper()
	flags := os.O_RDONLY
	if mode == durable.ReadWrite {
		flags = os.O_RDWR
	}
	file, err := os.OpenFile(path, flags, 0)
	must(t, err)
	i, err := qcow2.OpenImage(durable.NewFile(file), mode)
	must(t, err)
	t.Cleanup(func() { i.Close() })
	return i
}
