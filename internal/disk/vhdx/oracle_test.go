package vhdx_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// ask runs an oracle; a missing one fails the test.
func ask(t testing.TB, command string, args ...string) string {
	t.Helper()
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// merged is the content of models laid over one another, the lowest first.
func merged(models ...*model) func(g int64) uint64 {
	return func(g int64) uint64 {
		for _, m := range slices.Backward(models) {
			if stamp, found := m.stamps[g]; found {
				return stamp
			}
		}
		return 0
	}
}

// sevenZip lets 7-Zip test the file and read all of it, and holds that against the models.
func sevenZip(t testing.TB, path string, models ...*model) {
	t.Helper()
	ask(t, "7zz", "t", "-tvhdx", path)
	read(t, models, "7zz", "e", "-so", "-tvhdx", path)
}

// qemu lets QEMU check the file and read all of it.
func qemu(t testing.TB, path string, m *model) {
	t.Helper()
	ask(t, "qemu-img", "check", "-q", "-f", "vhdx", path)
	raw := path + ".raw"
	ask(t, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, raw)
	read(t, []*model{m}, "cat", raw)
	must(t, os.Remove(raw))
}

// read compares what a command writes with the models.
func read(t testing.TB, models []*model, command string, args ...string) {
	t.Helper()
	process := exec.Command(command, args...)
	var messages bytes.Buffer
	process.Stderr = &messages
	out, err := process.StdoutPipe()
	must(t, err, process.Start())
	want := merged(models...)
	size := models[0].SizeBytes
	buffer := make([]byte, mib)
	for at := int64(0); at < size; {
		n, err := io.ReadFull(out, buffer[:min(mib, size-at)])
		if err != nil {
			t.Fatalf("%s ends at %d of %d: %v, %s", command, at+int64(n), size, process.Wait(), messages.Bytes())
		}
		compare(t, command, at, buffer[:n], want)
		at += int64(n)
	}
	rest, err := io.Copy(io.Discard, out)
	if err != nil || rest != 0 {
		t.Fatalf("%s goes on behind the disk's end: %d, %v", command, rest, err)
	}
	if err := process.Wait(); err != nil {
		t.Fatalf("%s: %v, %s", command, err, messages.Bytes())
	}
}

var zeros [grain]byte

func compare(t testing.TB, who string, at int64, got []byte, want func(int64) uint64) {
	t.Helper()
	for i := 0; i < len(got); i += grain {
		part := got[i:min(i+grain, len(got))]
		g := (at + int64(i)) / grain
		stamp := want(g)
		if stamp == 0 && bytes.Equal(part, zeros[:len(part)]) {
			continue
		}
		if !carries(part, stamp) {
			t.Fatalf("%s reads %x… in grain %d, want the stamp %d", who, part[:8], g, stamp)
		}
	}
}

// libvhdiScript reads ranges of files by libvhdi and prints where their digests differ.
const libvhdiScript = `
import hashlib, json, sys, pyvhdi
for line in sys.stdin:
    job = json.loads(line)
    files = []
    for path in job["Paths"]:
        f = pyvhdi.file()
        f.open(path)
        if files:
            files[-1].set_parent(f)
        files.append(f)
    if files[0].get_media_size() != job["Size"]:
        print(path, "has", files[0].get_media_size(), "bytes")
    for off, n, digest in job["Ranges"]:
        files[0].seek(off)
        got = b""
        while len(got) < n:
            got += files[0].read(n - len(got))
        if hashlib.sha256(got).hexdigest() != digest:
            print(job["Paths"][0], "differs in", off, n, got[:16].hex())
`

// libvhdiJob is a file, with its parents behind it, and what it must hold.
type libvhdiJob struct {
	Paths  []string
	Size   int64
	Ranges [][3]any
}

// job is every changed grain of the models, and its neighbours.
func job(paths []string, models ...*model) libvhdiJob {
	want := merged(models...)
	size := models[0].SizeBytes
	touched := make(map[int64]bool)
	for _, m := range models {
		for g := range m.stamps {
			for near := max(g-1, 0); near <= g+1 && near*grain < size; near++ {
				touched[near] = true
			}
		}
	}
	j := libvhdiJob{Paths: paths, Size: size, Ranges: [][3]any{}}
	for g := range touched {
		if touched[g-1] {
			continue
		}
		digest := sha256.New()
		first := g
		for ; touched[g]; g++ {
			digest.Write(content(want(g))[:min(grain, size-g*grain)])
		}
		n := min(g*grain, size) - first*grain
		j.Ranges = append(j.Ranges, [3]any{first * grain, n, hex.EncodeToString(digest.Sum(nil))})
	}
	return j
}

// libvhdi lets libvhdi read many files in one process.
func libvhdi(t testing.TB, jobs []libvhdiJob) {
	t.Helper()
	var input bytes.Buffer
	for _, j := range jobs {
		must(t, json.NewEncoder(&input).Encode(j))
	}
	process := exec.Command("/usr/bin/python3", "-c", libvhdiScript)
	process.Stdin = &input
	out, err := process.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("libvhdi: %v\n%s", err, out)
	}
}
