package qcow2_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// TestKilled reads what qemu-io left when it was killed while it wrote, as QEMU does, and writes into it; after QEMU
// counted the refcounts where it says that they were not kept.
func TestKilled(t *testing.T) {
	for _, options := range []string{"lazy_refcounts=on", "compat=1.1", "compat=0.10", "extended_l2=on"} {
		t.Run(strings.ReplaceAll(options, "=", " "), func(t *testing.T) {
			f := newForeign(t, options)
			killWriting(t, f.path)
			f.readAsQEMU(t)
			info := describe(t, f.path)
			if info.Dirty != (options == "lazy_refcounts=on") {
				t.Errorf("dirty: %t", info.Dirty)
			}
			if info.Dirty {
				f.refusedUntilRepaired(t)
			}
			i := openImage(t, f.path, durable.ReadWrite)
			f.write(t, i, 1000, 5<<20)
			must(t, i.Unmap(3<<20, 1<<20))
			clear(f.bytes[3<<20 : 4<<20])
			must(t, i.Close())
			f.equal(t)
			if errs, _ := checkWithQEMU(t, f.path); errs > 0 {
				t.Errorf("qemu-img check finds %d errors", errs)
			}
		})
	}
}

// killWriting kills qemu-io behind the 40th of many writes or soon after, before it closes the image.
func killWriting(t *testing.T, path string) {
	t.Helper()
	args := []string{"-oL", "qemu-io", "-f", "qcow2"}
	for n := range 80 {
		args = append(args, "-c", fmt.Sprintf("write -P %d %dk 100k", n%250+1, n*7919%9000))
	}
	command := exec.Command("stdbuf", append(args, "-c", "sleep 60000", path)...)
	out, err := command.StdoutPipe()
	must(t, err)
	must(t, command.Start())
	lines, wrote := bufio.NewScanner(out), 0
	for wrote < 40 && lines.Scan() {
		if strings.Contains(lines.Text(), "wrote") {
			wrote++
		}
	}
	must(t, command.Process.Kill())
	if err := command.Wait(); err == nil || wrote < 40 {
		t.Fatalf("qemu-io was not killed: %v after %d writes", err, wrote)
	}
}

// readAsQEMU reads the whole disk, and holds it against what QEMU reads.
func (f *foreign) readAsQEMU(t *testing.T) {
	t.Helper()
	out := filepath.Join(f.directory, "read")
	f.run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", f.path, out)
	want, err := os.ReadFile(out)
	must(t, err)
	if bytes.Count(want, []byte{0}) == len(want) {
		t.Fatal("nothing was written before the kill")
	}
	f.bytes = want
	i := openImage(t, f.path, durable.ReadOnly)
	f.content(t, i)
	must(t, i.Close())
}

func (f *foreign) refusedUntilRepaired(t *testing.T) {
	t.Helper()
	file, err := os.OpenFile(f.path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	_, err = qcow2.OpenImage(durable.NewFile(file), durable.ReadWrite)
	if found := failure.Find(err); err == nil || !strings.Contains(found.Remedy, "qemu-img check -r all") {
		t.Errorf("a dirty image opens for writing, or without a remedy: %v", err)
	}
	f.run(t, "qemu-img", "check", "-q", "-r", "all", "-f", "qcow2", f.path)
}

func describe(t testing.TB, path string) disk.Info {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	info, err := qcow2.Describe(durable.NewFile(file))
	must(t, err)
	return info
}
