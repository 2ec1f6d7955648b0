package vhdx_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
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

// sevenZip lets 7-Zip read all of the file, and holds that against the models.
func sevenZip(t testing.TB, path string, models ...*model) {
	t.Helper()
	read(t, models, "7zz", "e", "-so", "-tvhdx", path)
}

// qemu lets QEMU check the file and read all of it. Where it makes a hole it read zeros.
func qemu(t testing.TB, path string, m *model) {
	t.Helper()
	ask(t, "qemu-img", "check", "-q", "-f", "vhdx", path)
	raw := path + ".raw"
	ask(t, "qemu-img", "convert", "-f", "vhdx", "-O", "raw", path, raw)
	file := openFile(t, raw)
	defer file.Close()
	size, err := file.Size()
	must(t, err)
	if size != m.SizeBytes {
		t.Fatalf("QEMU reads %d bytes of %d", size, m.SizeBytes)
	}
	found, want, buffer := 0, merged(m), make([]byte, mib)
	for at := int64(0); at < size; {
		start, end, err := file.SeekData(at)
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		for at = start / grain * grain; at < end; {
			part := buffer[:min(mib, size-at, (end-at+grain-1)/grain*grain)]
			_, err := file.ReadAt(part, at)
			must(t, err)
			found += compare(t, "QEMU", at, part, want)
			at += int64(len(part))
		}
	}
	if content := m.grainsOfContent(); found != content {
		t.Fatalf("QEMU reads %d grains with content, want %d", found, content)
	}
	must(t, os.Remove(raw))
}

// grainsOfContent is how many are not zeros.
func (m *model) grainsOfContent() (n int) {
	for _, stamp := range m.stamps {
		if stamp != 0 {
			n++
		}
	}
	return n
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

// compare holds what was read at an offset against the model, and answers how many grains are not zeros.
func compare(t testing.TB, who string, at int64, got []byte, want func(int64) uint64) (content int) {
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
		content++
	}
	return content
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
        got = hashlib.sha256()
        while n > 0:
            part = files[0].read(min(n, 1 << 18))
            got.update(part)
            n -= len(part)
        if got.hexdigest() != digest:
            print(job["Paths"][0], "differs at", off)
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
	var part [grain]byte
	j := libvhdiJob{Paths: paths, Size: size, Ranges: [][3]any{}}
	for g := range touched {
		if touched[g-1] {
			continue
		}
		digest := sha256.New()
		first := g
		for ; touched[g]; g++ {
			repeat(part[:], want(g))
			digest.Write(part[:min(grain, size-g*grain)])
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
