package qcow2_test

import (
	"encoding/json"
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

// TestQEMUAgrees plays histories and lets QEMU check, compare, map, read and commit what they leave.
func TestQEMUAgrees(t *testing.T) {
	sizes := []int64{512, 4096 + 512, 128 << 10, 5<<20 + 1536, 300 << 20, 3<<30 + 512}
	for seed := range uint64(18) {
		size := sizes[seed%uint64(len(sizes))]
		t.Run(fmt.Sprintf("seed %d, %d bytes", seed, size), func(t *testing.T) {
			f := newFixture(t, size)
			f.play(t, rand.New(rand.NewPCG(seed, 2)))
			f.seal(t)
			f.ask(t)
		})
	}
}

// TestQEMUWritesAndWeReadOn lets QEMU write to a sealed overlay, and goes on with what it left.
func TestQEMUWritesAndWeReadOn(t *testing.T) {
	f := newFixture(t, 300<<20+512)
	r := rand.New(rand.NewPCG(5, 2))
	f.play(t, r)
	f.seal(t)
	for g := int64(0); g < 40; g++ {
		f.model.last++
		f.model.stamps[g*37] = f.model.last & 0xff * 0x0101010101010101
		f.run(t, "qemu-io", "-f", "qcow2", "-c",
			fmt.Sprintf("write -P %d %d 4096", f.model.last&0xff, g*37*grain), f.overlay)
	}
	f.o = open(t, f.overlay, durable.ReadWrite, smallCache)
	f.model.check(t, f.o)
	f.model.last += 1000
	f.play(t, r)
	f.seal(t)
	f.ask(t)
}

// fixture is an overlay over a raw base, the model of the overlay, and the base's own stamps.
type fixture struct {
	directory, overlay string
	model, base        *model
	o                  *qcow2.Overlay
}

// baseStamp keeps the base's stamps apart from the overlay's.
const baseStamp = 1 << 60

func newFixture(t *testing.T, size int64) *fixture {
	t.Helper()
	f := &fixture{directory: memoryDir(t), model: newModel(size), base: newModel(size)}
	f.overlay = filepath.Join(f.directory, "overlay")
	f.o = create(t, f.overlay, size, smallCache)
	r := rand.New(rand.NewPCG(uint64(size), 9))
	for range 60 {
		first, count := f.base.pick(r)
		for g := first; g < first+count; g++ {
			f.base.stamps[g] = baseStamp + uint64(g)
		}
	}
	f.writeRaw(t, "base", f.base)
	return f
}

// memoryDir is a directory in memory, where a sync costs nothing.
func memoryDir(t testing.TB) string {
	t.Helper()
	directory, err := os.MkdirTemp("/dev/shm", "qcow2-*")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(directory) })
	return directory
}

func (f *fixture) play(t *testing.T, r *rand.Rand) {
	t.Helper()
	for range 40 {
		f.model.random(t, f.o, r)
		if r.IntN(8) == 0 {
			must(t, f.o.Flush())
			f.run(t, "qemu-img", "check", "-q", "-f", "qcow2", f.overlay)
		}
	}
}

func (f *fixture) seal(t *testing.T) {
	t.Helper()
	must(t, f.o.Seal(disk.Parent{Name: "base", Format: "raw"}))
	must(t, f.o.Close())
}

// ask holds every answer of QEMU's against the models.
func (f *fixture) ask(t *testing.T) {
	t.Helper()
	f.run(t, "qemu-img", "check", "-q", "-f", "qcow2", f.overlay)
	f.checkInfo(t)
	f.checkMap(t)
	merged := newModel(f.model.size)
	for _, layer := range []*model{f.base, f.model} {
		for g, stamp := range layer.stamps {
			merged.stamps[g] = stamp
		}
	}
	want := f.writeRaw(t, "want", merged)
	f.run(t, "qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", f.overlay, want)
	f.run(t, "qemu-img", "commit", "-q", "-d", "-f", "qcow2", f.overlay)
	f.run(t, "cmp", filepath.Join(f.directory, "base"), want)
}

func (f *fixture) checkInfo(t *testing.T) {
	t.Helper()
	var info struct {
		Size    int64  `json:"virtual-size"`
		Backing string `json:"backing-filename"`
		Format  string `json:"backing-filename-format"`
	}
	f.answer(t, &info, "qemu-img", "info", "--output=json", "-f", "qcow2", f.overlay)
	if info.Size != f.model.size || info.Backing != "base" || info.Format != "raw" {
		t.Errorf("qemu-img info: %+v", info)
	}
}

// checkMap compares QEMU's map with the model, subcluster by subcluster.
func (f *fixture) checkMap(t *testing.T) {
	t.Helper()
	var extents []struct {
		Start, Length int64
		Depth         int
		Zero          bool
	}
	f.answer(t, &extents, "qemu-img", "map", "--output=json", "-f", "qcow2", f.overlay)
	held := 0
	for _, e := range extents {
		if e.Depth > 0 {
			continue
		}
		for g := e.Start / grain; g*grain < e.Start+e.Length; g++ {
			stamp, present := f.model.stamps[g]
			if !present || kindOf(stamp) == disk.Zero != e.Zero {
				t.Fatalf("subcluster %d is stamp %d (present %t), QEMU has %+v", g, stamp, present, e)
			}
			held++
		}
	}
	if held != len(f.model.stamps) {
		t.Errorf("QEMU finds %d subclusters in the overlay, want %d", held, len(f.model.stamps))
	}
}

// writeRaw makes a sparse raw file of what m holds.
func (f *fixture) writeRaw(t *testing.T, name string, m *model) string {
	t.Helper()
	path := filepath.Join(f.directory, name)
	file, err := os.Create(path)
	must(t, err)
	must(t, file.Truncate(m.size))
	for g, stamp := range m.stamps {
		if stamp != 0 {
			_, err := file.WriteAt(content(stamp)[:min(grain, m.size-g*grain)], g*grain)
			must(t, err)
		}
	}
	must(t, file.Close())
	return path
}

func (f *fixture) run(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (f *fixture) answer(t *testing.T, into any, command string, args ...string) {
	t.Helper()
	must(t, json.Unmarshal([]byte(f.run(t, command, args...)), into))
}
