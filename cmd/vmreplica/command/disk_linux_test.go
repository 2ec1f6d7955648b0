package command_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// qemu runs one of QEMU's tools.
func qemu(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	output, err := exec.Command(name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, exit.Stderr)
	}
	return output
}

// scattered makes an image with data, zeros and holes.
func scattered(t *testing.T, path, driver string, create ...string) {
	t.Helper()
	qemu(t, "qemu-img", append(append([]string{"create", "-q", "-f", driver}, create...), path, "64M")...)
	qemu(t, "qemu-io", "-f", driver, "-c", "write -P 1 0 64k", "-c", "write -P 2 1M 3M", "-c", "write -z 2M 512k",
		"-c", "write -P 3 40M 65536", "-c", "write -P 4 63M 1M", path)
}

// span is a range of a disk: whether it belongs to what was asked.
type span struct {
	offset, length int64
	in             bool
}

// joined joins neighbours that are alike.
func joined(spans []span) []span {
	var all []span
	for _, s := range spans {
		if last := len(all) - 1; last >= 0 && all[last].in == s.in && all[last].offset+all[last].length == s.offset {
			all[last].length += s.length
			continue
		}
		all = append(all, s)
	}
	return all
}

// mapped is what `disk map` says, by a test on the kind.
func mapped(t *testing.T, path, f string, in func(kind string) bool) []span {
	t.Helper()
	got := run(t.Context(), nil, "disk", "map", path, "--format", f, "-o", "json")
	got.expect(t, 0, "", "")
	var spans []span
	for line := range strings.Lines(got.out) {
		var e struct {
			Offset, Length int64
			Kind           string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		spans = append(spans, span{e.Offset, e.Length, in(e.Kind)})
	}
	return joined(spans)
}

// mappedByQEMU is what qemu-img map says.
func mappedByQEMU(t *testing.T, path, driver string, in func(depth int, present, data bool) bool) []span {
	t.Helper()
	var extents []struct {
		Start, Length int64
		Depth         int
		Present, Data bool
	}
	if err := json.Unmarshal(qemu(t, "qemu-img", "map", "--output=json", "-f", driver, path), &extents); err != nil {
		t.Fatal(err)
	}
	var spans []span
	for _, e := range extents {
		spans = append(spans, span{e.Start, e.Length, in(e.Depth, e.Present, e.Data)})
	}
	return joined(spans)
}

func isData(kind string) bool                      { return kind == "data" }
func isDataToQEMU(_ int, _, data bool) bool        { return data }
func isHere(kind string) bool                      { return kind != "absent" }
func isHereToQEMU(depth int, present, _ bool) bool { return depth == 0 && present }

func TestDiskMapIsQEMUs(t *testing.T) {
	directory := t.TempDir()
	for f, driver := range map[string]string{"qcow2": "qcow2", "raw": "raw"} {
		path := filepath.Join(directory, f)
		scattered(t, path, driver)
		got, want := mapped(t, path, f, isData), mappedByQEMU(t, path, driver, isDataToQEMU)
		if fmt.Sprint(got) != fmt.Sprint(want) || len(got) < 3 {
			t.Errorf("%s: data is\n%v, qemu-img says\n%v", f, got, want)
		}
	}
	top := filepath.Join(directory, "top")
	scattered(t, top, "qcow2", "-b", "qcow2", "-F", "qcow2")
	got, want := mapped(t, top, "qcow2", isHere), mappedByQEMU(t, top, "qcow2", isHereToQEMU)
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) < 3 {
		t.Errorf("over a backing file: not absent is\n%v, qemu-img says\n%v", got, want)
	}
	run(t.Context(), nil, "disk", "map", top, "--format", "qcow2").expect(t, 0, "absent\n", "")
}

func TestDiskInfo(t *testing.T) {
	directory := t.TempDir()
	for f, driver := range map[string]string{"qcow2": "qcow2", "vhdx": "vhdx", "vhd": "vpc", "raw": "raw"} {
		path := filepath.Join(directory, f)
		scattered(t, path, driver)
		got := run(t.Context(), nil, "disk", "info", path, "--format", f, "-o", "json")
		got.expect(t, 0, "", "")
		var info struct {
			Format, Identity     string
			SizeBytes            int64
			LogicalSectorBytes   int
			Dirty                bool
			Extents              map[string]int64
			FileBytes, HostBytes int64
			Parent               *struct{ Name, Format string }
		}
		if err := json.Unmarshal([]byte(got.out), &info); err != nil {
			t.Fatalf("%s: %v", got.out, err)
		}
		var sum int64
		for _, bytes := range info.Extents {
			sum += bytes
		}
		var theirs struct {
			Size int64 `json:"virtual-size"`
		}
		if err := json.Unmarshal(qemu(t, "qemu-img", "info", "--output=json", "-f", driver, path), &theirs); err != nil {
			t.Fatal(err)
		}
		about, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		hasIdentity := f == "vhd" || f == "vhdx"
		if info.Format != f || info.SizeBytes != theirs.Size || info.LogicalSectorBytes != 512 || info.Dirty || sum != info.SizeBytes ||
			info.FileBytes != about.Size() || info.HostBytes <= 0 || info.Parent != nil || (info.Identity != "") != hasIdentity {
			t.Errorf("%s: %s", f, got.out)
		}
		run(t.Context(), nil, "disk", "info", path, "--format", f).expect(t, 0, "64.0 MiB (", "")
		if f == "vhdx" { // qemu-img leaves space between the metadata and the first block to nobody
			run(t.Context(), nil, "disk", "check", path, "--format", f).expect(t, 1, "is whole, with 1 finding of leaked space", "")
			continue
		}
		run(t.Context(), nil, "disk", "check", path, "--format", f).expect(t, 0, "is consistent.\n", "")
	}
	top := filepath.Join(directory, "top")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "qcow2", "-F", "qcow2", top)
	run(t.Context(), nil, "disk", "info", top, "--format", "qcow2").expect(t, 0, "Left to the parent", "")
}

// TestDiskCheck counts a cluster of a qcow2 image once too often, which leaks it, and once too seldom, as qemu-img check sees it too.
func TestDiskCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	scattered(t, path, "qcow2")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := int64(2 * 65536) // where qemu-img puts the first refcount block
	count := make([]byte, 2)
	if _, err := file.ReadAt(count, block); err != nil || count[1] != 1 {
		t.Fatalf("there is no refcount block: %v, %v", count, err)
	}
	for name, c := range map[string]struct {
		cluster int64
		count   byte
		says    string
	}{"leaked": {6, 2, "leaked "}, "damaged": {5, 0, "damaged "}} {
		was := make([]byte, 2)
		if _, err := file.ReadAt(was, block+2*c.cluster); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte{0, c.count}, block+2*c.cluster); err != nil {
			t.Fatal(err)
		}
		if exec.Command("qemu-img", "check", "-f", "qcow2", path).Run() == nil {
			t.Errorf("%s: qemu-img finds nothing", name)
		}
		run(t.Context(), nil, "disk", "check", path, "--format", "qcow2").expect(t, 1, c.says, "")
		got := run(t.Context(), nil, "disk", "check", path, "--format", "qcow2", "-o", "json")
		got.expect(t, 1, `{"severity":"`+name+`","message":"`, "")
		if _, err := file.WriteAt(was, block+2*c.cluster); err != nil {
			t.Fatal(err)
		}
	}
	run(t.Context(), nil, "disk", "check", path, "--format", "qcow2").expect(t, 0, "is consistent.\n", "")
}

func TestDiskVerbsThatCannotWork(t *testing.T) {
	directory := t.TempDir()
	path, pipe := filepath.Join(directory, "web01.vhdx"), filepath.Join(directory, "pipe")
	scattered(t, path, "qcow2")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"info", "check", "map"} {
		run(t.Context(), nil, "disk", verb, path).expect(t, 2, "", "--format vhdx, or another of raw")
		run(t.Context(), nil, "disk", verb, path, "--format", "vmdk").expect(t, 2, "", "raw, vhd, vhdx or qcow2")
		run(t.Context(), nil, "disk", verb, path, "--format", "vhdx").expect(t, 4, "", "no VHDX signature")
		run(t.Context(), nil, "disk", verb, path+"x", "--format", "vhdx").expect(t, 3, "", "IMAGE_MISSING")
		run(t.Context(), nil, "disk", verb, directory, "--format", "raw").expect(t, 4, "", "neither a file nor a block device")
		run(t.Context(), nil, "disk", verb, pipe, "--format", "raw").expect(t, 4, "", "neither a file nor a block device")
	}
	server := exec.Command("qemu-nbd", "-f", "qcow2", "-k", filepath.Join(directory, "socket"), "--persistent", "--fork",
		"--pid-file", filepath.Join(directory, "pid"), path)
	if output, err := server.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	defer func() {
		text, _ := os.ReadFile(filepath.Join(directory, "pid"))
		var pid int
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Fatal(err)
		}
		unix.Kill(pid, unix.SIGTERM)
	}()
	for _, verb := range []string{"info", "check", "map"} {
		run(t.Context(), nil, "disk", verb, path, "--format", "qcow2").expect(t, 4, "", "qemu-nbd")
	}
}
