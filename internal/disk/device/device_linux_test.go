package device_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/device"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/failure"
)

func TestConformance(t *testing.T) {
	paths := map[disk.Disk]string{}
	open := func(t *testing.T, path string) disk.Disk {
		d := openDevice(t, path, imagelock.Write)
		paths[d] = path
		return d
	}
	disktest.Base(t, disktest.Subject{
		Open: func(t *testing.T, size int64) disk.Disk { return open(t, loop(t, size)) },
		Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
			must(t, d.Close())
			return open(t, paths[d])
		},
	})
}

func TestASectorOf4096Bytes(t *testing.T) {
	const size = 1 << 20
	d := openDevice(t, loop(t, size, "--sector-size", "4096"), imagelock.Write)
	if sector := d.LogicalSectorSize(); sector != 4096 {
		t.Fatalf("a sector of %d bytes", sector)
	}
	want := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 1))
	for round := range 200 {
		off := random.Int64N(size)
		n := 1 + random.Int64N(min(size-off, 20000))
		clear(want[off : off+n])
		switch round % 3 {
		case 0:
			must(t, d.Zero(off, n))
		case 1:
			must(t, d.Unmap(off, n))
		default:
			for i := off; i < off+n; i++ {
				want[i] = byte(random.Uint32())
			}
			_, err := d.WriteAt(want[off:off+n], off)
			must(t, err)
		}
		got := make([]byte, size)
		_, err := d.ReadAt(got, 0)
		must(t, err)
		if !bytes.Equal(got, want) {
			t.Fatalf("after round %d, %d bytes at %d", round, n, off)
		}
	}
}

// TestZerosReachTheMedium reads the file below the device: what is answered from a cache proves nothing.
func TestZerosReachTheMedium(t *testing.T) {
	for name, zero := range map[string]func(*device.Disk, int64, int64) error{"Zero": (*device.Disk).Zero, "Unmap": (*device.Disk).Unmap} {
		const size = 1 << 20
		backing := backingFile(t, size)
		must(t, os.WriteFile(backing, bytes.Repeat([]byte{0xa5}, size), 0o600))
		d := openDevice(t, disktest.Loop(t, backing), imagelock.Write)
		must(t, zero(d, 1000, size-2000))
		must(t, d.Flush())
		want := bytes.Repeat([]byte{0xa5}, size)
		clear(want[1000 : size-1000])
		if got, err := os.ReadFile(backing); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: the file below differs (%v)", name, err)
		}
	}
}

func TestOnlyABlockDeviceIsOpened(t *testing.T) {
	directory := t.TempDir()
	file := filepath.Join(directory, "file")
	must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	pipe := filepath.Join(directory, "pipe")
	must(t, unix.Mkfifo(pipe, 0o600))
	link := filepath.Join(directory, "link")
	must(t, os.Symlink(loop(t, 1<<20), link))
	for _, path := range []string{file, pipe, link, directory, "/dev/null"} {
		_, err := device.Open(path, imagelock.Read)
		wantReason(t, err, failure.ReasonImageUnreadable)
		if !strings.Contains(err.Error(), path+" is not a block device") {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := device.Stamp(path); err == nil {
			t.Errorf("%s has a stamp", path)
		}
	}
	_, err := device.Open(filepath.Join(directory, "none"), imagelock.Read)
	wantReason(t, err, failure.ReasonImageMissing)
}

func TestADeviceWithoutAMediumIsMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node")
	must(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(240, 77))))
	_, err := device.Open(path, imagelock.Read)
	wantReason(t, err, failure.ReasonImageMissing)
}

func TestAReadOnlyDeviceIsNotOpenedForWriting(t *testing.T) {
	path := loop(t, 1<<20, "--read-only")
	_, err := device.Open(path, imagelock.Write)
	wantReason(t, err, failure.ReasonImageUnreadable)
	d := openDevice(t, path, imagelock.Read)
	_, err = d.WriteAt([]byte{1}, 0)
	if err == nil || d.Zero(0, 512) == nil || d.Unmap(0, 512) == nil {
		t.Error("a change was accepted")
	}
}

func TestADeviceInUseIsRefusedWithWhoUsesIt(t *testing.T) {
	t.Run("mounted", func(t *testing.T) {
		path, point := loop(t, 16<<20), t.TempDir()
		run(t, "mkfs.ext4", "-q", path)
		run(t, "mount", path, point)
		defer run(t, "umount", point)
		wantInUse(t, path, point)
	})
	t.Run("a partition of it is mounted", func(t *testing.T) {
		path, point := loop(t, 16<<20, "--partscan"), t.TempDir()
		run(t, "addpart", path, "1", "2048", "24576")
		run(t, "mkfs.ext4", "-q", path+"p1")
		run(t, "mount", path+"p1", point)
		defer run(t, "umount", point)
		wantInUse(t, path, "part of it is mounted")
	})
	t.Run("the agent itself", func(t *testing.T) {
		path := loop(t, 1<<20)
		openDevice(t, path, imagelock.Read)
		wantInUse(t, path, "this agent itself")
	})
	t.Run("a virtual machine's program", func(t *testing.T) {
		path, pidFile := loop(t, 1<<20), filepath.Join(t.TempDir(), "pid")
		run(t, "qemu-nbd", "--fork", "--pid-file="+pidFile, "--socket="+filepath.Join(t.TempDir(), "s"), "-f", "raw", path)
		text, err := os.ReadFile(pidFile)
		must(t, err)
		var process int
		_, err = fmt.Sscan(string(text), &process)
		must(t, err)
		wantInUse(t, path, fmt.Sprintf("qemu-nbd (process %d)", process))
		must(t, unix.Kill(process, unix.SIGKILL))
	})
}

// TestQEMUIsKeptOut starts a writer of QEMU's on a device that the agent reads.
func TestQEMUIsKeptOut(t *testing.T) {
	path := loop(t, 1<<20)
	openDevice(t, path, imagelock.Read)
	output, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 4k", path).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "lock") {
		t.Errorf("not refused for a lock: %v: %s", err, output)
	}
}

func TestTheStampHoldsWhileNothingIsWritten(t *testing.T) {
	path := loop(t, 1<<20)
	d := openDevice(t, path, imagelock.Write)
	before, err := d.Stamp()
	must(t, err)
	_, err = d.ReadAt(make([]byte, 1<<20), 0)
	must(t, err)
	atPath, err := device.Stamp(path)
	must(t, err)
	if difference := before.Difference(atPath); difference != "" {
		t.Errorf("nothing was written: %s", difference)
	}
	_, err = d.WriteAt([]byte{1}, 0)
	must(t, err)
	after, err := device.Stamp(path)
	must(t, err)
	if before.Difference(after) == "" {
		t.Error("a write that was still in the cache does not show")
	}
}

// TestAWriteByAnotherThatIsStillInMemoryShows writes beside the open disk: no last close syncs it.
func TestAWriteByAnotherThatIsStillInMemoryShows(t *testing.T) {
	path := loop(t, 1<<20)
	d := openDevice(t, path, imagelock.Read)
	before, err := d.Stamp()
	must(t, err)
	run(t, "dd", "if=/dev/urandom", "of="+path, "bs=4096", "count=1", "seek=3", "conv=notrunc", "status=none")
	after, err := d.Stamp()
	must(t, err)
	if before.Difference(after) == "" {
		t.Error("the write does not show")
	}
}

func TestAnEmptyDeviceIsRefused(t *testing.T) {
	path := loop(t, 4096)
	must(t, os.Truncate(strings.TrimSpace(outputOf(t, "losetup", "--noheadings", "--output=BACK-FILE", path)), 0))
	run(t, "losetup", "--set-capacity", path)
	_, err := device.Open(path, imagelock.Read)
	wantReason(t, err, failure.ReasonImageUnreadable)
}

func wantInUse(t *testing.T, path, who string) {
	t.Helper()
	_, err := device.Open(path, imagelock.Write)
	wantReason(t, err, failure.ReasonImageInUse)
	found := failure.Find(err)
	if !strings.Contains(found.Error(), who) ||
		!strings.Contains(found.Message, path) || found.Remedy == "" {
		t.Errorf("got %v, want IMAGE_IN_USE that names %s", err, who)
	}
}

func wantReason(t *testing.T, err error, reason string) {
	t.Helper()
	if err == nil || failure.Find(err).Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
}

func openDevice(t *testing.T, path string, access imagelock.Access) *device.Disk {
	t.Helper()
	d, err := device.Open(path, access)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func loop(t *testing.T, size int64, options ...string) string {
	t.Helper()
	return disktest.Loop(t, backingFile(t, size), options...)
}

func backingFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Truncate(path, size))
	return path
}

func run(t *testing.T, name string, arguments ...string) { outputOf(t, name, arguments...) }

func outputOf(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	command := exec.Command(name, arguments...)
	var output bytes.Buffer
	command.Stdout = &output
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return output.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var _ disk.Image = (*device.Disk)(nil)
