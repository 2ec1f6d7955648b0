package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Mode is what a guest does.
type Mode string

// The modes.
const (
	Write Mode = "write"
	Check Mode = "check"
)

// Disk is a QEMU block node without its name: what stands after -blockdev.
type Disk map[string]any

// Raw is a raw image.
func Raw(path string) Disk {
	return Disk{"driver": "raw", "discard": "unmap", "file": Disk{"driver": "file", "filename": path, "discard": "unmap"}}
}

// Qcow2 is a qcow2 image.
func Qcow2(path string) Disk {
	return Disk{"driver": "qcow2", "discard": "unmap", "file": Disk{"driver": "file", "filename": path}}
}

// Copy is a disk above an image, which stays as it is.
func Copy(t testing.TB, image, format string) Disk {
	t.Helper()
	overlay := filepath.Join(t.TempDir(), "overlay.qcow2")
	output, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", format, "-b", image, overlay).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	return Qcow2(overlay)
}

// Lines are QEMU's arguments for a machine's disks.
type Lines []string

// Disks are the lines of disks, in their order.
func Disks(t testing.TB, disks ...Disk) (lines Lines) {
	t.Helper()
	for i, disk := range disks {
		disk["node-name"] = fmt.Sprintf("d%d", i)
		text := must(json.Marshal(disk))(t)
		lines = append(lines, "-blockdev", string(text), "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d,werror=report,rerror=report", i))
	}
	return lines
}

// Typed are the lines that a shell makes of a text.
func Typed(t testing.TB, text string) Lines {
	t.Helper()
	words := must(exec.Command("sh", "-c", `printf '%s\0' `+text).Output())(t)
	return strings.Split(strings.TrimSuffix(string(words), "\x00"), "\x00")
}

// Disks are those of the lines, in their order.
func (l Lines) Disks(t testing.TB) (disks []Disk) {
	t.Helper()
	for i, word := range l {
		if word != "-blockdev" {
			continue
		}
		var d Disk
		must(0, json.Unmarshal([]byte(l[i+1]), &d))(t)
		disks = append(disks, d)
	}
	return disks
}

// Format makes an ext4 filesystem in each raw image, as a guest that writes expects it.
func Format(t testing.TB, images ...string) {
	t.Helper()
	for _, image := range images {
		if output, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "nodiscard", image).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
}

// kernel is where tools/guest-kernel unpacks, from the directory of a test's package.
const kernel = "../../bin/guest"

// bound is how long a guest may be silent on a busy machine.
const bound = 2 * time.Minute

// Guest is a running virtual machine.
type Guest struct {
	t       testing.TB
	process *exec.Cmd
	ended   chan error

	mu sync.Mutex
	// lines are what the console said.
	lines []string
	// commits are the rows that the guest said it has committed.
	commits []commit
	// more is closed and made anew with each line.
	more chan struct{}
}

type commit struct {
	row int
	at  time.Time
}

// Start boots a guest. It ends with the test at the latest.
func Start(t testing.TB, mode Mode, lines Lines) *Guest {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the guest is made of this host's programs and an amd64 kernel")
	}
	g := &Guest{t: t, ended: make(chan error, 1), more: make(chan struct{})}
	g.process = exec.Command("qemu-system-x86_64", append(arguments(t, mode), lines...)...)
	g.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	console, err := g.process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.process.Stderr = g.process.Stdout
	if err := g.process.Start(); err != nil {
		t.Fatalf("%v: make setup", err)
	}
	go func() {
		g.read(bufio.NewScanner(console))
		g.ended <- g.process.Wait()
	}()
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			t.Logf("a guest to %s said last:\n%s", mode, strings.Join(g.lines[max(0, len(g.lines)-30):], "\n"))
		}
	})
	return g
}

func arguments(t testing.TB, mode Mode) []string {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := build(initrd, kernel, "e2fsck", "sqlite3"); err != nil {
		t.Fatal(err)
	}
	return []string{
		"-M", "pc,accel=tcg", "-m", "192", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", filepath.Join(kernel, "vmlinuz"), "-initrd", initrd,
		"-append", fmt.Sprintf("console=ttyS0 quiet panic=-1 mode=%s", mode),
	}
}

// read takes in what the console says.
func (g *Guest) read(lines *bufio.Scanner) {
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		g.mu.Lock()
		g.lines = append(g.lines, line)
		c := commit{at: time.Now()}
		if n, _ := fmt.Sscanf(line, "GUEST committed %d", &c.row); n == 1 {
			g.commits = append(g.commits, c)
		}
		close(g.more)
		g.more = make(chan struct{})
		g.mu.Unlock()
	}
}

// Committed is the newest row that the guest said it has committed; 0 before the first.
func (g *Guest) Committed() int { return g.CommittedBefore(time.Now()) }

// CommittedBefore is the newest row of which it said so before an instant.
func (g *Guest) CommittedBefore(instant time.Time) (row int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.commits {
		if c.at.Before(instant) {
			row = c.row
		}
	}
	return row
}

// Said are the lines of the console, one text.
func (g *Guest) Said() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.lines, "\n")
}

// Await waits until the console has said a line that begins so, and answers the first.
func (g *Guest) Await(line string) string {
	g.t.Helper()
	var found string
	g.await(fmt.Sprintf("says %q", line), func() bool {
		i := slices.IndexFunc(g.lines, func(said string) bool { return strings.HasPrefix(said, line) })
		if i >= 0 {
			found = g.lines[i]
		}
		return i >= 0
	})
	return found
}

// AwaitRows waits until so many more rows are committed than now.
func (g *Guest) AwaitRows(more int) {
	g.t.Helper()
	want := g.Committed() + more
	g.await(fmt.Sprintf("commits row %d", want), func() bool {
		return len(g.commits) > 0 && g.commits[len(g.commits)-1].row >= want
	})
}

// await waits until met, which is asked under mu after each line.
func (g *Guest) await(what string, met func() bool) {
	g.t.Helper()
	silent := time.NewTimer(bound)
	defer silent.Stop()
	for {
		g.mu.Lock()
		done, more := met(), g.more
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-more:
			silent.Reset(bound)
		case err := <-g.ended:
			g.ended <- err
			g.t.Fatalf("the guest ended before it %s: %v\n%s", what, err, g.Said())
		case <-silent.C:
			g.t.Fatalf("the guest is silent before it %s:\n%s", what, g.Said())
		}
	}
}

// End waits until the guest has done what it was started for, without an error.
func (g *Guest) End() {
	g.t.Helper()
	if ended := g.Await("GUEST ended"); ended != "GUEST ended 0" || strings.Contains(g.Said(), "I/O error") {
		g.t.Fatalf("the guest failed:\n%s", g.Said())
	}
	select {
	case err := <-g.ended:
		g.ended <- err
		if err != nil {
			g.t.Fatalf("the guest ended with %v:\n%s", err, g.Said())
		}
	case <-time.After(bound):
		g.t.Fatal("the guest does not power off")
	}
}

// Kill ends the guest as a power cut does.
func (g *Guest) Kill() {
	_ = g.process.Process.Kill()
	g.ended <- <-g.ended
}

// Findings are what a guest found on disks that it can live on or not.
type Findings struct {
	// Rows is how many rows there are, Newest the newest's number.
	Rows, Newest int
	// Integrity is what the database says of itself, "ok" where it is whole.
	Integrity string
	// Bad is how many files are not as their rows say, Fsck the worst answer of e2fsck; 0 where all is well.
	Bad, Fsck int
}

// Examine boots a guest from the disks and has it check them.
func Examine(t testing.TB, lines Lines) (f Findings) {
	t.Helper()
	g := Start(t, Check, lines)
	g.Await("GUEST ended")
	i := strings.Index(g.Said(), "GUEST found ")
	if i < 0 {
		t.Logf("the guest found nothing that it can live on:\n%s", g.Said())
		return Findings{Integrity: "no filesystem", Fsck: 8}
	}
	_, err := fmt.Sscanf(g.Said()[i:], "GUEST found rows=%d newest=%d integrity=%s bad=%d fsck=%d", &f.Rows, &f.Newest, &f.Integrity, &f.Bad, &f.Fsck)
	if err != nil {
		t.Fatalf("%v:\n%s", err, g.Said())
	}
	return f
}

// Fault says what is wrong with the disks, where a guest committed rows up to newest before they were as they are;
// empty when nothing is.
func (f Findings) Fault(newest int) string {
	switch {
	case f.Integrity != "ok" || f.Bad != 0 || f.Fsck != 0:
		return fmt.Sprintf("the guest's own check fails: %+v", f)
	case f.Newest < newest || f.Rows != f.Newest:
		return fmt.Sprintf("row %d was committed and is not there: %+v", newest, f)
	}
	return ""
}
