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
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// foreignSize is on no boundary but the sector's.
const foreignSize = 9<<20 + 1536

// foreignImages are the ways in which qemu-img makes an image: the options of `create`, and those of a `convert -c`
// afterwards.
var foreignImages = map[string]struct{ create, compress string }{
	"version 2":                   {create: "compat=0.10"},
	"version 2, deflate":          {create: "compat=0.10", compress: "compat=0.10"},
	"version 3":                   {create: "compat=1.1"},
	"clusters of 512 bytes":       {create: "cluster_size=512"},
	"clusters of 4 KiB":           {create: "cluster_size=4k"},
	"clusters of 2 MiB":           {create: "cluster_size=2M"},
	"extended L2":                 {create: "extended_l2=on"},
	"extended L2 of 16 KiB":       {create: "extended_l2=on,cluster_size=16k"},
	"extended L2 of 2 MiB":        {create: "extended_l2=on,cluster_size=2M"},
	"lazy refcounts":              {create: "lazy_refcounts=on"},
	"refcounts of 1 bit":          {create: "refcount_bits=1"},
	"refcounts of 2 bits":         {create: "refcount_bits=2"},
	"refcounts of 4 bits":         {create: "refcount_bits=4"},
	"refcounts of 8 bits":         {create: "refcount_bits=8"},
	"refcounts of 32 bits":        {create: "refcount_bits=32"},
	"refcounts of 64 bits":        {create: "refcount_bits=64,cluster_size=512"},
	"preallocated metadata":       {create: "preallocation=metadata"},
	"preallocated, falloc":        {create: "preallocation=falloc"},
	"preallocated, full":          {create: "preallocation=full"},
	"deflate":                     {create: "compat=1.1", compress: "compat=1.1"},
	"deflate of 512 bytes":        {create: "compat=1.1", compress: "cluster_size=512"},
	"deflate of 2 MiB":            {create: "compat=1.1", compress: "cluster_size=2M"},
	"deflate in extended L2":      {create: "compat=1.1", compress: "extended_l2=on"},
	"zstd":                        {create: "compat=1.1", compress: "compression_type=zstd"},
	"zstd of 4 KiB":               {create: "compat=1.1", compress: "compression_type=zstd,cluster_size=4k"},
	"zstd of 2 MiB":               {create: "compat=1.1", compress: "compression_type=zstd,cluster_size=2M"},
	"zstd with refcounts of 1bit": {create: "compat=1.1", compress: "compression_type=zstd,refcount_bits=1"},
}

// TestForeignImages reads what qemu-img makes, holds the extents against `qemu-img map`, writes into it, and has QEMU
// read and check what came of it.
func TestForeignImages(t *testing.T) {
	for name, options := range foreignImages {
		t.Run(name, func(t *testing.T) {
			f := newForeign(t, options.create)
			f.scribble(t, rand.New(rand.NewPCG(1, 1)))
			if options.compress != "" {
				f.compress(t, options.compress)
			}
			f.compare(t)
			f.change(t, 2)
		})
	}
}

// TestForeignSnapshots writes over clusters that internal snapshots share: the snapshots keep what they had.
func TestForeignSnapshots(t *testing.T) {
	for name, options := range foreignImages {
		if strings.Contains(name, "of 1") && strings.Contains(name, "bit") {
			continue // a refcount of one bit counts no snapshot
		}
		t.Run(name, func(t *testing.T) {
			f := newForeign(t, options.create)
			f.scribble(t, rand.New(rand.NewPCG(2, 1)))
			if options.compress != "" {
				f.compress(t, options.compress)
			}
			first := f.snapshot(t, "first")
			f.change(t, 3)
			second := f.snapshot(t, "second")
			f.compare(t)
			f.change(t, 4)
			f.holds(t, "first", first)
			f.holds(t, "second", second)
			f.run(t, "qemu-img", "snapshot", "-d", "first", f.path)
			f.change(t, 5)
			f.holds(t, "second", second)
		})
	}
}

// TestForeignBitmaps writes into an image with persistent bitmaps, which do not follow: QEMU is told.
func TestForeignBitmaps(t *testing.T) {
	f := newForeign(t, "compat=1.1")
	f.run(t, "qemu-img", "bitmap", "--add", f.path, "dirty")
	f.scribble(t, rand.New(rand.NewPCG(3, 1)))
	f.compare(t)
	f.clean(t)
	i := openImage(t, f.path, durable.ReadWrite)
	f.write(t, i, 0, 4096)
	must(t, i.Close())
	f.equal(t)
	if info := f.run(t, "qemu-img", "info", "-f", "qcow2", f.path); strings.Contains(info, "bitmaps:") {
		t.Errorf("the bitmap still counts as consistent:\n%s", info)
	}
}

// TestForeignBacking reads the layer alone: what it leaves to its backing file is absent.
func TestForeignBacking(t *testing.T) {
	for name, options := range map[string]string{"plain": "compat=1.1", "extended L2": "extended_l2=on", "version 2": "compat=0.10"} {
		for _, below := range []int64{foreignSize - 2<<20, foreignSize + 2<<20} {
			t.Run(fmt.Sprintf("%s over %d bytes", name, below), func(t *testing.T) {
				f := newForeign(t, "compat=1.1")
				base := f.path
				f.run(t, "qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", base, fmt.Sprint(below))
				f.path = filepath.Join(f.directory, "layer")
				f.run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", "base", "-F", "qcow2", f.path,
					fmt.Sprint(foreignSize))
				f.run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", "-c", "write -P 8 1000k 3000k",
					"-c", "write -z 2M 512k", "-c", "write -P 9 8999k 8k", f.path)
				i := openImage(t, f.path, durable.ReadOnly)
				if name, format, ok := i.Backing(); name != "base" || format != "qcow2" || !ok {
					t.Errorf("the backing file is %q, %q, %t", name, format, ok)
				}
				f.compareMap(t, i)
				f.absent(t, i)
				file, err := os.OpenFile(f.path, os.O_RDWR, 0)
				must(t, err)
				defer file.Close()
				if _, err := qcow2.OpenImage(durable.NewFile(file), durable.ReadWrite); err == nil {
					t.Error("an image with a backing file was opened for writing")
				}
			})
		}
	}
}

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

// TestDamagedCompression reads and partly writes a cluster that does not decompress: both fail, and nothing is lost.
func TestDamagedCompression(t *testing.T) {
	f := newForeign(t, "compat=1.1")
	f.run(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", f.path)
	f.compress(t, "compat=1.1")
	content, err := os.ReadFile(f.path)
	must(t, err)
	table := binary.BigEndian.Uint64(content[binary.BigEndian.Uint64(content[40:]):]) & (1<<56 - 1)
	packed := binary.BigEndian.Uint64(content[table:]) & (1<<54 - 1)
	copy(content[packed:], bytes.Repeat([]byte{0xff}, 512))
	must(t, os.WriteFile(f.path, content, 0o600))
	i := openImage(t, f.path, durable.ReadWrite)
	if _, err := i.ReadAt(make([]byte, 512), 0); err == nil {
		t.Error("a damaged cluster is read")
	}
	if _, err := i.WriteAt(make([]byte, 512), 512); err == nil {
		t.Error("a part of a damaged cluster is written, and the rest is lost")
	}
	must(t, i.Close())
	f.clean(t)
}
