//go:build linux

package imagelock_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/failure"
)

const imageSize = 1 << 20

func TestWhoLetsWhomIn(t *testing.T) {
	cases := []struct {
		name          string
		first, second imagelock.Access
		refused       bool
	}{
		{"two readers", imagelock.Read, imagelock.Read, false},
		{"a writer after a reader", imagelock.Read, imagelock.Write, true},
		{"a reader after a writer", imagelock.Write, imagelock.Read, true},
		{"two writers", imagelock.Write, imagelock.Write, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := image(t)
			first, second := openFile(t, path), openFile(t, path)
			lock(t, first, c.first)
			err := imagelock.Lock(second.Fd(), path, c.second)
			if !c.refused {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantInUse(t, err, path, "this agent itself")
			first.Close()
			lock(t, second, c.second)
		})
	}
}

// TestARefusedLockLeavesNothingBehind asks that the second's locks do not stand in the way of a third.
func TestARefusedLockLeavesNothingBehind(t *testing.T) {
	path := image(t)
	first, second, third := openFile(t, path), openFile(t, path), openFile(t, path)
	lock(t, first, imagelock.Read)
	if imagelock.Lock(second.Fd(), path, imagelock.Write) == nil {
		t.Fatal("a writer was let in beside a reader")
	}
	lock(t, third, imagelock.Read)
}

// TestTheBytesAreQEMUs compares what the kernel says is locked.
func TestTheBytesAreQEMUs(t *testing.T) {
	want := map[imagelock.Access]string{imagelock.Read: "100-100 201-201 203-203", imagelock.Write: "100-101 103-103 201-201 203-203"}
	for access, bytes := range want {
		file := openFile(t, image(t))
		lock(t, file, access)
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", file.Fd()))
		must(t, err)
		var got []string
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 5 && fields[0] == "lock:" {
				if fields[2] != "OFDLCK" || fields[4] != "READ" {
					t.Errorf("a lock of another kind: %s", line)
				}
				got = append(got, fields[len(fields)-2]+"-"+fields[len(fields)-1])
			}
		}
		if sorted := strings.Join(sortedStrings(got), " "); sorted != bytes {
			t.Errorf("access %d locks %s, want %s", access, sorted, bytes)
		}
	}
}

// TestBesideQEMU opens what a program of QEMU's has open. What it denies follows from its own rights: a machine
// and qemu-nbd deny others to resize, qemu-io on a raw image denies nothing.
func TestBesideQEMU(t *testing.T) {
	cases := []struct {
		name         string
		holder       func(t *testing.T, path string) int
		read, write  bool
		wantsProcess string
	}{
		{"qemu-nbd writing", nbd(), false, false, "qemu-nbd"},
		{"qemu-nbd reading", nbd("--read-only"), true, false, "qemu-nbd"},
		{"qemu-io writing", qemuIO(), false, false, "qemu-io"},
		{"qemu-io reading", qemuIO("--read-only"), true, true, "qemu-io"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := image(t)
			process := c.holder(t, path)
			for access, allowed := range map[imagelock.Access]bool{imagelock.Read: c.read, imagelock.Write: c.write} {
				file := openFile(t, path)
				err := imagelock.Lock(file.Fd(), path, access)
				file.Close()
				if allowed && err != nil {
					t.Errorf("access %d: %v", access, err)
				}
				if !allowed {
					wantInUse(t, err, path, fmt.Sprintf("%s (process %d)", c.wantsProcess, process))
				}
			}
		})
	}
}

// TestQEMUBesideUs starts QEMU's programs on an image that the agent holds.
func TestQEMUBesideUs(t *testing.T) {
	cases := []struct {
		name    string
		command []string
		// reading and writing say whether it succeeds beside an agent that does.
		reading, writing bool
	}{
		{"compare", []string{"qemu-img", "compare", "-f", "raw", "-F", "raw", "IMAGE", "OTHER"}, true, true},
		{"convert from it", []string{"qemu-img", "convert", "-f", "raw", "-O", "raw", "IMAGE", "NEW"}, true, false},
		{"convert to it", []string{"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "OTHER", "IMAGE"}, false, false},
		{"resize", []string{"qemu-img", "resize", "-f", "raw", "IMAGE", "+1M"}, false, false},
		{"write", []string{"qemu-io", "-f", "raw", "-c", "write 0 4k", "IMAGE"}, false, false},
	}
	for _, c := range cases {
		for access, succeeds := range map[imagelock.Access]bool{imagelock.Read: c.reading, imagelock.Write: c.writing} {
			t.Run(fmt.Sprintf("%s, access %d", c.name, access), func(t *testing.T) {
				path, other := image(t), image(t)
				lock(t, openFile(t, path), access)
				names := strings.NewReplacer("IMAGE", path, "OTHER", other, "NEW", path+".new")
				var arguments []string
				for _, argument := range c.command[1:] {
					arguments = append(arguments, names.Replace(argument))
				}
				output, err := exec.Command(c.command[0], arguments...).CombinedOutput()
				if succeeds && err != nil {
					t.Errorf("%v: %s", err, output)
				}
				if !succeeds && (err == nil || !strings.Contains(string(output), "lock")) {
					t.Errorf("not refused for a lock: %v: %s", err, output)
				}
			})
		}
	}
}

// TestAnotherProgramsExclusiveLock meets a lock that is not of QEMU's scheme.
func TestAnotherProgramsExclusiveLock(t *testing.T) {
	path := image(t)
	other := openFile(t, path)
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	must(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &whole))
	wantInUse(t, imagelock.Lock(openFile(t, path).Fd(), path, imagelock.Read), path, "this agent itself")
}

func TestADescriptorThatCannotBeLocked(t *testing.T) {
	file := openFile(t, image(t))
	fd := file.Fd()
	file.Close()
	err := imagelock.Lock(fd, "/images/a", imagelock.Read)
	if found := failure.Find(err); found.Reason != failure.ReasonImageUnreadable || found.Remedy == "" {
		t.Errorf("got %v", err)
	}
}

// TestOnlyWhoLocksIsNamed has two programs with the image open, of which one locks it.
func TestOnlyWhoLocksIsNamed(t *testing.T) {
	path := image(t)
	bystander := exec.Command("cat")
	input, err := bystander.StdinPipe()
	must(t, err)
	bystander.ExtraFiles = []*os.File{openFile(t, path)}
	must(t, bystander.Start())
	t.Cleanup(func() { input.Close(); bystander.Wait() })
	process := nbd()(t, path)
	file := openFile(t, path)
	err = imagelock.Lock(file.Fd(), path, imagelock.Read)
	wantInUse(t, err, path, fmt.Sprintf("in qemu-nbd (process %d)", process))
	if strings.Contains(err.Error(), "cat") || strings.Contains(err.Error(), "itself") {
		t.Errorf("%q names who locks nothing", err)
	}
	if users := imagelock.Users(file.Fd()); !strings.Contains(users, fmt.Sprintf("cat (process %d)", bystander.Process.Pid)) {
		t.Errorf("used by %s", users)
	}
}

func TestUsersNamesEachProgramOnce(t *testing.T) {
	path := image(t)
	file := openFile(t, path)
	if users := imagelock.Users(file.Fd()); users != "" {
		t.Errorf("used by %s", users)
	}
	openFile(t, path)
	openFile(t, path)
	process := nbd()(t, path)
	users := imagelock.Users(file.Fd())
	if strings.Count(users, "this agent itself") != 1 || !strings.Contains(users, fmt.Sprintf("qemu-nbd (process %d)", process)) {
		t.Errorf("used by %s", users)
	}
}

func wantInUse(t *testing.T, err error, path, process string) {
	t.Helper()
	found := failure.Find(err)
	if err == nil || found.Reason != failure.ReasonImageInUse || found.Class != failure.Precondition {
		t.Fatalf("got %v, want IMAGE_IN_USE", err)
	}
	if !strings.Contains(found.Message, path) || !strings.Contains(found.Message, process) || found.Remedy == "" {
		t.Errorf("%q does not name %s and %s with a remedy", err, path, process)
	}
}

// nbd runs qemu-nbd on the image. It goes into the background once it serves.
func nbd(options ...string) func(*testing.T, string) int {
	return func(t *testing.T, path string) int {
		t.Helper()
		pidFile, socket := filepath.Join(t.TempDir(), "pid"), filepath.Join(t.TempDir(), "s")
		options := append(options, "--fork", "--pid-file="+pidFile, "--socket="+socket, "--format=raw", "--persistent", path)
		if err := exec.Command("qemu-nbd", options...).Run(); err != nil {
			t.Fatalf("qemu-nbd is needed: %v", err)
		}
		text, err := os.ReadFile(pidFile)
		must(t, err)
		number, err := strconv.Atoi(strings.TrimSpace(string(text)))
		must(t, err)
		process, err := os.FindProcess(number)
		must(t, err)
		t.Cleanup(func() { process.Kill() })
		return number
	}
}

// qemuIO runs qemu-io on the image until the test ends, and waits for its prompt.
func qemuIO(options ...string) func(*testing.T, string) int {
	return func(t *testing.T, path string) int {
		t.Helper()
		command := exec.Command("qemu-io", append(options, "-f", "raw", path)...)
		input, err := command.StdinPipe()
		must(t, err)
		output, err := command.StdoutPipe()
		must(t, err)
		if err := command.Start(); err != nil {
			t.Fatalf("qemu-io is needed: %v", err)
		}
		t.Cleanup(func() { input.Close(); command.Wait() })
		if _, err := io.WriteString(input, "length\n"); err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if strings.Contains(lines.Text(), "1 MiB") {
				return command.Process.Pid
			}
		}
		t.Fatal("qemu-io did not open the image")
		return 0
	}
}

func image(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(path, make([]byte, imageSize), 0o600))
	return path
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { file.Close() })
	return file
}

func lock(t *testing.T, file *os.File, access imagelock.Access) {
	t.Helper()
	must(t, imagelock.Lock(file.Fd(), file.Name(), access))
}

func sortedStrings(s []string) []string { return slices.Sorted(slices.Values(s)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
