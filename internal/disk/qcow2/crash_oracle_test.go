package qcow2_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// askQEMU checks and reads the state with qemu-img.
func askQEMU(t *testing.T, crash *durabletest.Crash) error {
	t.Helper()
	p := promisesOf(crash)
	path := filepath.Join(memoryDir(t), "overlay")
	file, err := crash.Dir().Open("overlay", durable.ReadOnly)
	if err != nil || !p.created {
		return p.unlessNew(err)
	}
	must(t, disktest.Export(path, file))
	check(t, path, 3)
	o, err := qcow2.Open(file, durable.ReadOnly)
	must(t, err)
	if name, _ := o.Parent(); name != "" {
		must(t, os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o600))
	}
	f := &fixture{directory: filepath.Dir(path), model: &model{size: o.Size(), stamps: make(map[int64]uint64)}}
	f.run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, path+".raw")
	return compareWithRaw(p, path+".raw")
}

// compareWithRaw reads what QEMU read, where it was flushed.
func compareWithRaw(p *promises, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for g := range p.flushed {
		got := make([]byte, grain)
		n, err := file.ReadAt(got, g*grain)
		if err != nil && err != io.EOF {
			return err
		}
		if err := p.checkContent(g, got[:n]); err != nil {
			return fmt.Errorf("as QEMU reads it: %w", err)
		}
	}
	return nil
}
