package vhdx_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
)

// TestFilesMadeByQEMU reads what qemu-img creates and qemu-io writes, of every kind and block size, and writes on.
func TestFilesMadeByQEMU(t *testing.T) {
	disktest.OneGoroutine(t)
	for _, subformat := range []string{"dynamic", "fixed"} {
		for _, c := range []struct {
			block string
			size  int64
		}{
			{"1M", 530 * mib}, {"2M", 90*mib + 512}, {"8M", 40 * mib}, {"32M", 70 * mib}, {"256M", 300 * mib}, {"32M", 5 << 40},
		} {
			if subformat == "fixed" && c.size > 1<<40 {
				continue
			}
			t.Run(fmt.Sprint(subformat, " ", c.block, " ", c.size), func(t *testing.T) {
				madeByQEMU(t, subformat, c.block, c.size)
			})
		}
	}
}

func madeByQEMU(t *testing.T, subformat, block string, size int64) {
	path := filepath.Join(memoryDir(t), "disk")
	ask(t, "qemu-img", "create", "-q", "-f", "vhdx", "-o", "subformat="+subformat+",block_size="+block, path, fmt.Sprint(size))
	last := (size - 1) / grain * grain
	var commands []string
	written := map[int64]byte{0: 17, 511 * mib: 34, 512 * mib: 51, 513 * mib: 68, 3*mib + 4096: 85, last - grain: 102}
	for at, pattern := range written {
		if at < size-grain {
			commands = append(commands, "-c", fmt.Sprintf("write -P %d %d 4096", pattern, at))
		}
	}
	ask(t, "qemu-io", append(append([]string{"-f", "vhdx"}, commands...), path)...)
	d, err := vhdx.Open(openFile(t, path), durable.ReadWrite)
	must(t, err)
	if d.Size() != size {
		t.Errorf("%d bytes, want %d", d.Size(), size)
	}
	reads := func() {
		t.Helper()
		for at, pattern := range written {
			got := make([]byte, grain)
			if at >= size-grain {
				continue
			}
			if _, err := d.ReadAt(got, at); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{pattern}, grain)) {
				t.Errorf("at %d: %x, %v", at, got[:4], err)
			}
		}
	}
	reads()
	if _, err := d.WriteAt(bytes.Repeat([]byte{119}, grain), 5*mib); err != nil {
		t.Fatal(err)
	}
	written[5*mib] = 119
	reads()
	before := d.Identity()
	must(t, d.Close())
	clean(t, path)
	if describe(t, path).Identity != before {
		t.Error("closing changed the identity")
	}
	ask(t, "qemu-img", "check", "-q", "-f", "vhdx", path)
	for at, pattern := range written {
		if at >= size-grain {
			continue
		}
		if out := ask(t, "qemu-io", "-f", "vhdx", "-r", "-c", fmt.Sprintf("read -P %d %d 4096", pattern, at), path); strings.Contains(out, "fail") {
			t.Errorf("QEMU reads at %d: %s", at, out)
		}
	}
}

// TestForeignLogs kills QEMU while it writes, and replays what it left: in memory, and into the file. QEMU's own
// replay of a copy says what is right.
func TestForeignLogs(t *testing.T) {
	disktest.OneGoroutine(t)
	dirty := 0
	for attempt := 0; dirty < 4 && attempt < 60; attempt++ {
		path := filepath.Join(memoryDir(t), "disk")
		killQEMU(t, path, 3+attempt%7)
		if !isDirty(t, path) {
			continue
		}
		dirty++
		compareReplays(t, path)
	}
	if dirty < 4 {
		t.Errorf("QEMU left a log only %d times", dirty)
	}
}

// isDirty says whether there is something to replay. QEMU names a log before it has an entry: such a file is refused,
// as the specification has it.
func isDirty(t *testing.T, path string) bool {
	t.Helper()
	file := openFile(t, path)
	defer file.Close()
	info, err := vhdx.Describe(file)
	if err != nil && !strings.Contains(err.Error(), "no entries that can be replayed") {
		t.Fatal(err)
	}
	return err == nil && info.Dirty
}

// killQEMU ends a qemu-io that writes into new blocks, once its log was seen so many times.
func killQEMU(t *testing.T, path string, sightings int) {
	t.Helper()
	ask(t, "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "300M")
	args := []string{"-f", "vhdx"}
	for i := range 280 {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 4096", i%250+1, int64(i)*mib))
	}
	process := exec.Command("qemu-io", append(args, path)...)
	must(t, process.Start())
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	file := openFile(t, path)
	defer file.Close()
	for seen := 0; seen < sightings && len(ended) == 0; {
		if info, err := vhdx.Describe(file); err == nil && info.Dirty {
			seen++
		}
	}
	_ = process.Process.Kill() // it may have ended
	<-ended
}

func compareReplays(t *testing.T, path string) {
	t.Helper()
	theirs, raw := path+".qemu", path+".raw"
	ask(t, "cp", "--sparse=always", path, theirs)
	ask(t, "qemu-img", "check", "-r", "all", "-f", "vhdx", theirs)
	ask(t, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", theirs, raw)
	memory, err := vhdx.Open(openFile(t, path), durable.ReadOnly)
	must(t, err)
	equal(t, memory, raw)
	if !describe(t, path).Dirty {
		t.Fatal("reading changed the file")
	}
	replayed, err := vhdx.Open(openFile(t, path), durable.ReadWrite)
	must(t, err)
	equal(t, replayed, raw)
	must(t, memory.Close(), replayed.Close())
	if describe(t, path).Dirty {
		t.Error("the log is there after its replay")
	}
	clean(t, path)
	ask(t, "qemu-img", "compare", "-q", "-f", "vhdx", "-F", "raw", path, raw)
}

// equal compares the whole disk with a raw file.
func equal(t *testing.T, d disk.Reader, raw string) {
	t.Helper()
	file, err := os.Open(raw)
	must(t, err)
	defer file.Close()
	ours, theirs := make([]byte, mib), make([]byte, mib)
	for at := int64(0); at < d.Size(); at += mib {
		n := min(mib, d.Size()-at)
		_, err := d.ReadAt(ours[:n], at)
		must(t, err)
		if _, err := file.ReadAt(theirs[:n], at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(ours[:n], theirs[:n]) {
			t.Fatalf("the MiB at %d differs", at)
		}
	}
}
