package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

const grain = 4096

// TestHistories plays 500 random histories, of fixed and dynamic disks and of chains of differencing disks upon them,
// and lets 7zz, libvhdi and, where it can, QEMU read what they leave. A slice of bytes is what they must find.
func TestHistories(t *testing.T) {
	disktest.OneGoroutine(t)
	const batch = 50
	for first := uint64(0); first < 500; first += batch {
		t.Run(fmt.Sprintf("from seed %d", first), func(t *testing.T) {
			directory := memoryDir(t)
			histories := make([]*history, batch)
			for i := range histories {
				histories[i] = newHistory(t, directory, first+uint64(i))
				histories[i].play(t)
			}
			askLibvhdi(t, histories)
			ask7zz(t, directory, histories)
			askQEMU(t, histories)
		})
	}
}

// history is a chain of images, the base first, and what the disk must hold.
type history struct {
	random    *rand.Rand
	directory string
	name      string
	options   vhd.Options
	levels    int
	paths     []string
	want      []byte
	// parent is what the last image is to the next.
	parent disk.Parent
}

func newHistory(t *testing.T, directory string, seed uint64) *history {
	h := &history{random: rand.New(rand.NewPCG(seed, 21)), directory: directory, name: fmt.Sprintf("s%d", seed)}
	h.options = []vhd.Options{{Fixed: true}, {BlockBytes: 512 << 10}, {BlockBytes: 2 << 20}}[seed%3]
	sizes := []int64{512, 4096, 512<<10 + 512, 2 << 20, 3<<20 + 1536, 5<<20 + 512}
	h.options.SizeBytes = sizes[h.random.IntN(len(sizes))]
	h.levels = h.random.IntN(4)
	h.want = make([]byte, h.options.SizeBytes)
	return h
}

// play makes the base and the differencing disks upon it, each sealed.
func (h *history) play(t *testing.T) {
	t.Helper()
	base, err := vhd.Create(newFile(t, h.next("vhd")), h.options)
	must(t, err)
	h.steps(t, base, 512, func() disk.Disk {
		must(t, base.Close())
		base, err = vhd.Open(hostFile(t, h.tip(), durable.ReadWrite), durable.ReadWrite)
		must(t, err)
		return base
	})
	h.parent = h.asParent(base.Identity())
	must(t, base.Close())
	for range h.levels {
		h.layer(t)
	}
	must(t, os.WriteFile(h.expected(), h.want, 0o600))
}

func (h *history) layer(t *testing.T) {
	t.Helper()
	options := vhd.Options{SizeBytes: h.options.SizeBytes, BlockBytes: []int64{0, 512 << 10}[h.random.IntN(2)]}
	layer, err := vhd.CreateDifferencing(newFile(t, h.next("avhd")), options)
	must(t, err)
	h.steps(t, layer, grain, func() disk.Disk {
		must(t, layer.Close())
		layer, err = vhd.OpenDifferencing(hostFile(t, h.tip(), durable.ReadWrite), durable.ReadWrite)
		must(t, err)
		return layer
	})
	must(t, layer.Seal(disk.Parent{Name: "not this one.vhd", Format: "vhd"}))
	must(t, layer.Seal(h.parent))
	h.checkLayer(t, layer)
	h.parent = h.asParent(layer.Identity())
	must(t, layer.Close())
}

// checkLayer reads what the layer itself holds.
func (h *history) checkLayer(t *testing.T, layer *vhd.Layer) {
	t.Helper()
	for e, err := range layer.Extents(0, layer.Size()) {
		must(t, err)
		got := make([]byte, e.Length)
		_, err := layer.ReadAt(got, e.Offset)
		switch {
		case e.Kind == disk.Absent && errors.Is(err, disk.ErrAbsent):
		case e.Kind == disk.Absent || err != nil || !bytes.Equal(got, h.want[e.Offset:e.End()]):
			t.Fatalf("%s: %+v reads otherwise, %v", h.tip(), e, err)
		}
	}
}

func (h *history) next(extension string) string {
	h.paths = append(h.paths, filepath.Join(h.directory, fmt.Sprintf("%s-%d.%s", h.name, len(h.paths), extension)))
	return h.tip()
}

func (h *history) tip() string      { return h.paths[len(h.paths)-1] }
func (h *history) expected() string { return filepath.Join(h.directory, h.name+".raw") }

func (h *history) asParent(id disk.Identity) disk.Parent {
	return disk.Parent{Name: filepath.Base(h.tip()), Path: h.tip(), Format: "vhd", Identity: id}
}

// steps changes the disk at random, and flushes and opens it again now and then.
func (h *history) steps(t *testing.T, d disk.Disk, unit int64, reopen func() disk.Disk) {
	t.Helper()
	for range 1 + h.random.IntN(24) {
		off, n := h.pick(unit)
		switch h.random.IntN(8) {
		case 0:
			must(t, d.Zero(off, n))
			clear(h.want[off : off+n])
		case 1:
			must(t, d.Unmap(off, n))
			clear(h.want[off : off+n])
		case 2:
			must(t, d.Flush())
		case 3:
			d = reopen()
		default:
			p := h.want[off : off+n]
			stamp := h.random.Uint64()
			for i := range p {
				p[i] = byte(stamp>>(i%8*8)) + byte(i/512)
			}
			_, err := d.WriteAt(p, off)
			must(t, err)
		}
	}
}

func (h *history) pick(unit int64) (off, n int64) {
	units := (h.options.SizeBytes + unit - 1) / unit
	first := h.random.Int64N(units)
	count := 1 + h.random.Int64N(min(units-first, 100))
	return first * unit, min(count*unit, h.options.SizeBytes-first*unit)
}

// askLibvhdi compares all histories in one process.
func askLibvhdi(t *testing.T, histories []*history) {
	t.Helper()
	var lines strings.Builder
	for _, h := range histories {
		fmt.Fprintln(&lines, strings.Join(append([]string{h.expected()}, h.paths...), "\t"))
	}
	command := exec.Command("/usr/bin/python3", "testdata/compare.py")
	command.Stdin = strings.NewReader(lines.String())
	if out, err := command.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("libvhdi: %v\n%s", err, out)
	}
}

// ask7zz lets one process test and unpack every tip; it finds the parents by itself.
func ask7zz(t *testing.T, directory string, histories []*history) {
	t.Helper()
	var list []byte
	for _, h := range histories {
		list = fmt.Appendln(list, filepath.Base(h.tip()))
	}
	must(t, os.WriteFile(filepath.Join(directory, "list"), list, 0o600))
	run(t, directory, "7zz", "e", "-y", "-tvhd", "-an", "-ai@list", "-oout")
	for _, h := range histories {
		name := strings.TrimSuffix(filepath.Base(h.tip()), filepath.Ext(h.tip()))
		got, err := os.ReadFile(filepath.Join(directory, "out", name+".img"))
		must(t, err)
		if !bytes.Equal(got, h.want) {
			t.Errorf("%s: 7zz reads otherwise", h.tip())
		}
		must(t, os.Remove(filepath.Join(directory, "out", name+".img")))
	}
}

// askQEMU compares the bases. It would read a differencing disk as if it had no parent.
func askQEMU(t *testing.T, histories []*history) {
	t.Helper()
	for _, h := range histories {
		if h.levels == 0 {
			compareWithQEMU(t, h.tip(), h.expected())
		}
	}
}

func compareWithQEMU(t *testing.T, path, raw string) {
	t.Helper()
	run(t, "", "qemu-img", "compare", "-q", "--image-opts", qemuOptions(path), "driver=raw,file.filename="+raw)
}

func qemuOptions(path string) string {
	return "driver=vpc,force_size_calc=current_size,file.filename=" + path
}

func run(t *testing.T, directory, command string, args ...string) string {
	t.Helper()
	c := exec.Command(command, args...)
	c.Dir = directory
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// content is a grain that repeats the stamp.
func content(stamp uint64) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, stamp), grain/8)
}
