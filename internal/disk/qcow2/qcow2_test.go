package qcow2_test

import (
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

func TestConformance(t *testing.T) {
	paths := make(map[disk.Disk]string)
	disktest.Layer(t, disktest.Subject{
		Open: func(t *testing.T, size int64) disk.Disk {
			path := filepath.Join(t.TempDir(), "overlay")
			d := create(t, path, size)
			paths[d] = path
			return d
		},
		Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
			must(t, d.Close())
			again := open(t, paths[d], durable.ReadWrite)
			paths[again] = paths[d]
			return again
		},
	})
}

// create makes an overlay on the host, closed at the test's end.
func create(t testing.TB, path string, size int64, options ...qcow2.Option) *qcow2.Overlay {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	o, err := qcow2.Create(durable.NewFile(file), size, options...)
	must(t, err)
	t.Cleanup(func() { o.Close() })
	return o
}

func open(t testing.TB, path string, mode durable.Mode, options ...qcow2.Option) *qcow2.Overlay {
	t.Helper()
	flags := os.O_RDONLY
	if mode == durable.ReadWrite {
		flags = os.O_RDWR
	}
	file, err := os.OpenFile(path, flags, 0)
	must(t, err)
	o, err := qcow2.Open(durable.NewFile(file), mode, options...)
	must(t, err)
	t.Cleanup(func() { o.Close() })
	return o
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
