package vhdx_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// askOracle lets QEMU replay the log, and QEMU or 7-Zip read what was flushed.
func (m *model) askOracle(t *testing.T, crash *durabletest.Crash) error {
	t.Helper()
	p := promisesOf(crash)
	file, err := crash.Dir().Open("disk", durable.ReadOnly)
	if err != nil || !p.created || m.SizeBytes > 700*mib {
		return p.unlessNew(err)
	}
	path := filepath.Join(memoryDir(t), "disk")
	must(t, disktest.Export(path, file))
	out, err := exec.Command("qemu-img", "check", "-r", "all", "-f", "vhdx", path).CombinedOutput()
	if m.layer {
		return m.sevenZipReplayed(t, p, path) // QEMU replays, and then refuses a differencing disk
	}
	if err != nil {
		return fmt.Errorf("qemu-img: %w: %s", err, out)
	}
	ask(t, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, path+".raw")
	raw, err := os.Open(path + ".raw")
	must(t, err)
	defer raw.Close()
	return p.compare(m, raw, "QEMU")
}

// sevenZipReplayed reads a layer that QEMU replayed, over a base of zeros.
func (m *model) sevenZipReplayed(t *testing.T, p *promises, path string) error {
	t.Helper()
	info := describe(t, path)
	if info.Dirty {
		return errors.New("QEMU left the log")
	}
	base := shape{vhdx.Options{SizeBytes: m.SizeBytes}, false}
	parent := filepath.Join(filepath.Dir(path), "parent.vhdx")
	d, err := base.create(newFile(t, parent))
	must(t, err)
	id := d.Identity()
	must(t, d.Close())
	l, err := vhdx.OpenDifferencing(openFile(t, path), durable.ReadWrite)
	must(t, err)
	must(t, l.Seal(disk.Parent{Name: "parent.vhdx", Format: "vhdx", Identity: id}), l.Close())
	out, err := exec.Command("7zz", "e", "-so", "-tvhdx", path).Output()
	if err != nil {
		return fmt.Errorf("7zz: %w", err)
	}
	must(t, os.WriteFile(path+".raw", out, 0o600))
	raw, err := os.Open(path + ".raw")
	must(t, err)
	defer raw.Close()
	return p.compare(m, raw, "7-Zip")
}

// compare reads what an oracle read, where it was flushed.
func (p *promises) compare(m *model, from io.ReaderAt, who string) error {
	for g := range p.flushed {
		got := make([]byte, grain)
		n, err := from.ReadAt(got, g*grain)
		if err != nil && err != io.EOF {
			return err
		}
		if err := p.checkContent(m, g, got[:n]); err != nil {
			return fmt.Errorf("as %s reads it: %w", who, err)
		}
	}
	return nil
}

func describe(t testing.TB, path string) disk.Info {
	t.Helper()
	file := openFile(t, path)
	defer file.Close()
	info, err := vhdx.Describe(file)
	must(t, err)
	return info
}
