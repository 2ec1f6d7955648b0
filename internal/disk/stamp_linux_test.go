package disk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
)

func TestAStampSeesEveryKindOfChangeToAFile(t *testing.T) {
	cases := []struct {
		name   string
		change func(t *testing.T, path string)
		want   string
	}{
		{"one byte written in place", func(t *testing.T, path string) { overwrite(t, path, 4096, "x") }, "written to"},
		{"the same byte written again", func(t *testing.T, path string) { overwrite(t, path, 0, "a") }, "written to"},
		{"written, then its time set back", func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			overwrite(t, path, 0, "x")
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		}, "change time"},
		{"written through a map", func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer file.Close()
			memory, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_WRITE|unix.PROT_READ, unix.MAP_SHARED)
			must(t, err)
			memory[0] = 'x'
			must(t, unix.Munmap(memory))
		}, "written to"},
		{"longer", func(t *testing.T, path string) { must(t, os.Truncate(path, 12288)) }, "size was 8192 bytes and is 12288"},
		{"shorter", func(t *testing.T, path string) { must(t, os.Truncate(path, 4096)) }, "size was 8192 bytes and is 4096"},
		{"a hole punched", func(t *testing.T, path string) {
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer file.Close()
			must(t, unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
		}, "written to"},
		{"another file in its place", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".new", make([]byte, 8192), 0o600))
			must(t, os.Rename(path+".new", path))
		}, "another file"},
		{"a copy that keeps the times", func(t *testing.T, path string) {
			run(t, "cp", "--preserve=all", path, path+".new")
			must(t, os.Rename(path+".new", path))
		}, "another file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			must(t, os.WriteFile(path, []byte(strings.Repeat("a", 8192)), 0o600))
			before := stampAt(t, path)
			if again := stampAt(t, path); again != before {
				t.Fatalf("nothing changed: %s", before.Difference(again))
			}
			c.change(t, path)
			if difference := before.Difference(stampAt(t, path)); !strings.Contains(difference, c.want) {
				t.Errorf("the difference is %q, want %q", difference, c.want)
			}
		})
	}
}

// TestAChangeRightAfterTheStampIsSeen writes at once, many times: a file's times move by ticks only.
func TestAChangeRightAfterTheStampIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, make([]byte, 8192), 0o600))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	for round := range 50 {
		before, err := disk.StampOf(file.Fd())
		must(t, err)
		if _, err := file.WriteAt([]byte{byte(round)}, 0); err != nil {
			t.Fatal(err)
		}
		after, err := disk.StampOf(file.Fd())
		must(t, err)
		if before == after {
			t.Fatalf("round %d: the write does not show", round)
		}
	}
}

func TestReadingDoesNotMoveAStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, make([]byte, 8192), 0o600))
	before := stampAt(t, path)
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", path)
	if difference := before.Difference(stampAt(t, path)); difference != "" {
		t.Error(difference)
	}
}

func TestAStampOfADevice(t *testing.T) {
	backing := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(backing, make([]byte, 1<<20), 0o600))
	device := disktest.Loop(t, backing)
	before := stampAt(t, device)
	var node unix.Stat_t
	must(t, unix.Stat(device, &node))
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	must(t, err)
	if before.Device != node.Rdev || before.Inode != 0 || before.SizeBytes != 1<<20 || before.DiskSequence == 0 ||
		before.BootID != strings.TrimSpace(string(boot)) || before.ModifiedNanoseconds != 0 {
		t.Errorf("the stamp is %+v", before)
	}
	run(t, "dd", "if="+device, "of=/dev/null", "bs=64k", "status=none")
	if difference := before.Difference(stampAt(t, device)); difference != "" {
		t.Errorf("reading it: %s", difference)
	}
	overwrite(t, device, 4096, "x")
	written := stampAt(t, device)
	if difference := before.Difference(written); !strings.Contains(difference, "sectors were written") {
		t.Errorf("writing it: %q", difference)
	}
	run(t, "blkdiscard", device)
	if difference := written.Difference(stampAt(t, device)); !strings.Contains(difference, "sectors were written") {
		t.Errorf("discarding it: %q", difference)
	}
}

func TestADeviceSetUpAnewIsAnother(t *testing.T) {
	backing := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(backing, make([]byte, 1<<20), 0o600))
	stamps := make([]disk.Stamp, 2)
	for i := range stamps {
		t.Run("", func(t *testing.T) { stamps[i] = stampAt(t, disktest.Loop(t, backing)) })
	}
	if stamps[0].DiskSequence == stamps[1].DiskSequence || stamps[0].Difference(stamps[1]) == "" {
		t.Errorf("%+v and %+v", stamps[0], stamps[1])
	}
}

func TestAPartitionCountsItsOwnWrites(t *testing.T) {
	backing := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(backing, nil, 0o600))
	must(t, os.Truncate(backing, 16<<20))
	device := disktest.Loop(t, backing, "--partscan")
	run(t, "addpart", device, "1", "2048", "8192")
	run(t, "addpart", device, "2", "10240", "8192")
	whole, one, two := stampAt(t, device), stampAt(t, device+"p1"), stampAt(t, device+"p2")
	if one.SizeBytes != 4<<20 || one.DiskSequence != whole.DiskSequence || one.DiskSequence == 0 || one.Device == two.Device {
		t.Errorf("disk %+v, partitions %+v and %+v", whole, one, two)
	}
	overwrite(t, device+"p1", 0, "x")
	if one.Difference(stampAt(t, device+"p1")) == "" {
		t.Error("a write does not show on the partition")
	}
	if whole.Difference(stampAt(t, device)) == "" {
		t.Error("a write to a partition does not show on its disk")
	}
	if difference := two.Difference(stampAt(t, device+"p2")); difference != "" {
		t.Errorf("the neighbour: %s", difference)
	}
}

func TestADeviceThatIsNotCountedIsRefused(t *testing.T) {
	backing := filepath.Join(t.TempDir(), "backing")
	must(t, os.WriteFile(backing, make([]byte, 1<<20), 0o600))
	device := disktest.Loop(t, backing)
	setting := filepath.Join("/sys/block", filepath.Base(device), "queue/iostats")
	must(t, os.WriteFile(setting, []byte("0"), 0))
	defer os.WriteFile(setting, []byte("1"), 0)
	file, err := os.Open(device)
	must(t, err)
	defer file.Close()
	if _, err := disk.StampOf(file.Fd()); err == nil || !strings.Contains(err.Error(), "echo 1 >") {
		t.Errorf("got %v", err)
	}
}

// stampAt syncs what lies at path, as its owner would, and describes it.
func stampAt(t *testing.T, path string) disk.Stamp {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	must(t, file.Sync())
	stamp, err := disk.StampOf(file.Fd())
	must(t, err)
	return stamp
}

func overwrite(t *testing.T, path string, off int64, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	_, err = file.WriteAt([]byte(text), off)
	must(t, err)
}

func run(t *testing.T, name string, arguments ...string) {
	t.Helper()
	if output, err := exec.Command(name, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, output)
	}
}
