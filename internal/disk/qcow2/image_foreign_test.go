package qcow2_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// foreign is an image that QEMU made, and what it must hold.
type foreign struct {
	fixture
	path  string
	bytes []byte
	last  byte
}

func newForeign(t *testing.T, options string) *foreign {
	t.Helper()
	f := &foreign{fixture: fixture{directory: memoryDir(t)}, bytes: make([]byte, foreignSize)}
	f.path = filepath.Join(f.directory, "base")
	f.run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, f.path, fmt.Sprint(foreignSize))
	return f
}

// scribble has QEMU write, zero and discard.
func (f *foreign) scribble(t *testing.T, r *rand.Rand) {
	t.Helper()
	args := []string{"-f", "qcow2", "-d", "unmap"}
	for range 30 {
		off, n := f.pick(r)
		switch r.IntN(5) {
		case 0:
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, n))
			clear(f.bytes[off : off+n])
		case 1:
			args = append(args, "-c", fmt.Sprintf("write -z -u %d %d", off, n))
			clear(f.bytes[off : off+n])
		default:
			f.last++
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", f.last, off, n))
			copy(f.bytes[off:], bytes.Repeat([]byte{f.last}, int(n)))
		}
	}
	f.run(t, "qemu-io", append(args, f.path)...)
}

// pick is a range of sectors, a few of them long.
func (f *foreign) pick(r *rand.Rand) (off, n int64) {
	sectors := int64(len(f.bytes)) / 512
	off = r.Int64N(sectors)
	n = 1 + r.Int64N(min(sectors-off, []int64{8, 64, 1024, 8192}[r.IntN(4)]))
	return off * 512, n * 512
}

func (f *foreign) compress(t *testing.T, options string) {
	t.Helper()
	packed := f.path + ".packed"
	f.run(t, "qemu-img", "convert", "-q", "-c", "-O", "qcow2", "-o", options, f.path, packed)
	must(t, os.Rename(packed, f.path))
}

// compare holds what OpenImage finds against the bytes and against QEMU's map.
func (f *foreign) compare(t *testing.T) {
	t.Helper()
	i := openImage(t, f.path, durable.ReadOnly)
	f.content(t, i)
	f.compareMap(t, i)
	must(t, i.Close())
}

// content reads i in pieces of several sizes.
func (f *foreign) content(t *testing.T, i *qcow2.Image) {
	t.Helper()
	for _, piece := range []int64{64 << 10, 1<<20 + 512, foreignSize} {
		got := make([]byte, piece)
		for off := int64(0); off < foreignSize; off += piece {
			part := got[:min(piece, foreignSize-off)]
			if _, err := i.ReadAt(part, off); err != nil {
				t.Fatalf("reading %d bytes at %d: %v", len(part), off, err)
			}
			if !bytes.Equal(part, f.bytes[off:off+int64(len(part))]) {
				t.Fatalf("[%d, +%d) differs", off, len(part))
			}
		}
	}
}

// compareMap holds the extents against `qemu-img map`: what is data, what is zeros, what is left to the backing file.
func (f *foreign) compareMap(t *testing.T, i *qcow2.Image) {
	t.Helper()
	var want []struct {
		Start, Length       int64
		Depth               int
		Zero, Data, Present bool
	}
	f.answer(t, &want, "qemu-img", "map", "--output=json", "-f", "qcow2", f.path)
	_, _, layered := i.Backing()
	for _, w := range want {
		for e, err := range i.Extents(w.Start, w.Length) {
			must(t, err)
			switch {
			case layered && (w.Depth > 0 || !w.Present) != (e.Kind == disk.Absent),
				!layered && e.Kind == disk.Absent,
				e.Kind != disk.Absent && w.Data != (e.Kind == disk.Data):
				t.Fatalf("%+v, QEMU has %+v", e, w)
			}
		}
	}
}

// absent reads every extent by itself.
func (f *foreign) absent(t *testing.T, i *qcow2.Image) {
	t.Helper()
	seen := make(map[disk.Kind]bool)
	for e, err := range i.Extents(0, i.Size()) {
		must(t, err)
		seen[e.Kind] = true
		_, err := i.ReadAt(make([]byte, e.Length), e.Offset)
		if absent := e.Kind == disk.Absent; absent != errors.Is(err, disk.ErrAbsent) || !absent && err != nil {
			t.Errorf("reading %+v: %v", e, err)
		}
	}
	if !seen[disk.Absent] || !seen[disk.Data] {
		t.Errorf("the layer has the kinds %v", seen)
	}
}

// change writes, zeroes and unmaps at random, reopens at times, and has QEMU look at the outcome.
func (f *foreign) change(t *testing.T, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 5))
	i := openImage(t, f.path, durable.ReadWrite)
	for step := range 60 {
		off, n := f.pick(r)
		if r.IntN(3) == 0 {
			off, n = off+r.Int64N(512), 1+r.Int64N(n)
			n = min(n, foreignSize-off)
		}
		switch r.IntN(5) {
		case 0:
			must(t, i.Zero(off, n))
			clear(f.bytes[off : off+n])
		case 1:
			must(t, i.Unmap(off, n))
			clear(f.bytes[off : off+n])
		default:
			f.write(t, i, off, n)
		}
		if step%15 == 14 {
			must(t, i.Flush())
		}
	}
	f.content(t, i)
	must(t, i.Close())
	f.compare(t)
	f.equal(t)
	f.clean(t)
}

func (f *foreign) write(t *testing.T, i *qcow2.Image, off, n int64) {
	t.Helper()
	f.last++
	p := bytes.Repeat([]byte{f.last}, int(n))
	for at := 0; at+16 < len(p); at += 512 {
		binary.BigEndian.PutUint64(p[at:], uint64(off)+uint64(at))
	}
	_, err := i.WriteAt(p, off)
	must(t, err)
	copy(f.bytes[off:], p)
}

// equal has QEMU read the image.
func (f *foreign) equal(t *testing.T) {
	t.Helper()
	want := filepath.Join(f.directory, "want")
	must(t, os.WriteFile(want, f.bytes, 0o600))
	f.run(t, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", f.path, want)
}

// clean asks that `qemu-img check` finds nothing, not even a leak.
func (f *foreign) clean(t *testing.T) {
	t.Helper()
	for _, finding := range findings(t, f.path) {
		t.Errorf("Check finds: %s", finding.Message)
	}
	if errs, leaks := checkWithQEMU(t, f.path); errs+leaks > 0 {
		t.Errorf("qemu-img check finds %d errors and %d leaks:\n%s", errs, leaks,
			f.output("qemu-img", "check", "-f", "qcow2", f.path))
	}
}

// findings is all that Check finds.
func findings(t testing.TB, path string) []disk.Finding {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	var all []disk.Finding
	for finding, err := range qcow2.Check(durable.NewFile(file)) {
		must(t, err)
		all = append(all, finding)
	}
	return all
}

func (f *foreign) output(command string, args ...string) []byte {
	out, _ := f.try(command, args...)
	return out
}

func (f *foreign) try(command string, args ...string) ([]byte, error) {
	return exec.Command(command, args...).CombinedOutput()
}

// checkWithQEMU is what `qemu-img check` counts.
func checkWithQEMU(t testing.TB, path string) (errs, leaks int) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", "--output=json", "-f", "qcow2", path).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var found struct {
		Corruptions int `json:"corruptions"`
		Leaks       int `json:"leaks"`
		Errors      int `json:"check-errors"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		t.Fatalf("qemu-img check: %v, %s", err, out)
	}
	return found.Corruptions + found.Errors, found.Leaks
}

// snapshot has QEMU take an internal snapshot, and gives what it must hold.
func (f *foreign) snapshot(t *testing.T, name string) []byte {
	t.Helper()
	f.run(t, "qemu-img", "snapshot", "-c", name, f.path)
	return bytes.Clone(f.bytes)
}

func (f *foreign) holds(t *testing.T, snapshot string, want []byte) {
	t.Helper()
	out := filepath.Join(f.directory, "snapshot")
	f.run(t, "qemu-img", "convert", "-q", "-l", "snapshot.name="+snapshot, "-f", "qcow2", "-O", "raw", f.path, out)
	got, err := os.ReadFile(out)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("the snapshot %s changed", snapshot)
	}
}
