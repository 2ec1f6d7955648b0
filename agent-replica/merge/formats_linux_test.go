package merge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/agent-replica/chain"
	"vmreplica/agent-replica/storage"
	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/replication"
	"vmreplica/internal/state/statetest"
)

// combinations are what may stand on what.
var combinations = []struct {
	name         string
	base, layers replication.Format
	differencing replication.Differencing
	device       bool
}{
	{name: "raw under qcow2", base: "raw", layers: "qcow2"},
	{name: "a device under qcow2", base: "raw", layers: "qcow2", device: true},
	{name: "qcow2 under qcow2", base: "qcow2", layers: "qcow2"},
	{name: "VHDX under VHDX", base: "vhdx", layers: "vhdx"},
	{name: "VHDX under qcow2", base: "vhdx", layers: "qcow2", differencing: "qcow2"},
	{name: "VHD under VHD", base: "vhd", layers: "vhd"},
	{name: "VHD under qcow2", base: "vhd", layers: "qcow2", differencing: "qcow2"},
}

// wholeSize is two blocks of a VHD, not both full, in whole 4 KiB: of others 7-Zip reads no VHDX file.
const wholeSize = 3<<20 + 4096

// host is a world on the host's files, where other programs read them too.
type host struct {
	*world
	t    *testing.T
	root string
}

func newHost(t *testing.T, k kind, device bool) *host {
	t.Helper()
	h := &host{t: t, root: filepath.Join(t.TempDir(), "storage")}
	k.size = wholeSize
	check(t, os.Mkdir(h.root, 0o700))
	var patterns []string
	if device {
		k.devices = map[string]string{}
		for _, id := range diskIDs {
			backing := filepath.Join(t.TempDir(), id)
			check(t, os.WriteFile(backing, make([]byte, k.size), 0o600))
			k.devices[id] = disktest.Loop(t, backing)
			patterns = append(patterns, k.devices[id])
		}
	}
	dir, err := durable.OpenDir(h.root)
	check(t, err)
	allowed, err := images.New(nil, patterns)
	check(t, err)
	files := storage.New(dir, allowed)
	t.Cleanup(func() { check(t, files.Close()) })
	h.world = worldOn(dir, files, statetest.New(durabletest.New()), k)
	return h
}

func (h *host) path(file string) string { return filepath.Join(h.root, file) }

// disk is the disk's record.
func (h *host) disk(id string) chain.Disk {
	h.t.Helper()
	record, err := h.vm().Record()
	check(h.t, err)
	return *record.Disk(id)
}

// top is the highest file of a disk and its format.
func (h *host) top(id string) (string, replication.Format) {
	h.t.Helper()
	d := h.disk(id)
	if n := len(d.Layers); n > 0 {
		return h.path(d.Layers[n-1].File), d.Layers[n-1].Format
	}
	if d.Base.Device != "" {
		return d.Base.Device, d.Base.Format
	}
	return h.path(d.Base.File), d.Base.Format
}

// resync receives and commits a transfer.
func (h *host) resync(rng *rand.Rand, transfer int, now models) models {
	h.t.Helper()
	check(h.t, h.vm().Acquire())
	next, err := h.receive(rng, transfer, replication.KindResync, now)
	check(h.t, err)
	check(h.t, h.commit(transfer, next))
	check(h.t, h.vm().Release())
	return next
}

// others is a disk as another implementation reads it through the highest file and all that it stands on: QEMU, but
// 7-Zip for differencing VHD and VHDX files, of which QEMU reads none.
func others(path string, f replication.Format, differencing bool) ([]byte, error) {
	if differencing && f != "qcow2" {
		return output("7zz", "e", "-so", "-t"+string(f), path)
	}
	out := path + ".flat"
	defer os.Remove(out)
	driver := f
	if f == "vhd" {
		driver = "vpc"
	}
	if _, err := output("qemu-img", "convert", "-f", string(driver), "-O", "raw", path, out); err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

func output(name string, arguments ...string) ([]byte, error) {
	command := exec.Command(name, arguments...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	content, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, stderr.Bytes())
	}
	return content, nil
}

// agree compares every disk, read by others, with want.
func (h *host) agree(when string, want models) {
	h.t.Helper()
	for _, id := range diskIDs {
		path, f := h.top(id)
		d := h.disk(id)
		got, err := others(path, f, len(d.Layers) > 0)
		if err != nil {
			h.t.Fatalf("%s: %v", when, err)
		}
		if at := firstDifference(got, want[id]); at >= 0 {
			h.t.Fatalf("%s: disk %s is read by another program with another byte at %d", when, id, at)
		}
	}
}

// describe is what a file says of itself.
func (h *host) describe(path string, f replication.Format) disk.Info {
	h.t.Helper()
	file, err := os.Open(path)
	check(h.t, err)
	defer file.Close()
	info, err := format.Describe(durable.NewFile(file), f, path)
	check(h.t, err)
	for finding, err := range format.Check(durable.NewFile(file), f, path) {
		check(h.t, err)
		h.t.Errorf("%s: %s", path, finding.Message)
	}
	return info
}

// linked makes sure that each layer names what lies below it, by its identity where it has one.
func (h *host) linked(id string) {
	h.t.Helper()
	d := h.disk(id)
	if d.Base.Device != "" {
		return
	}
	below, belowFormat := h.path(d.Base.File), d.Base.Format
	for _, layer := range d.Layers {
		path := h.path(layer.File)
		parent, identity := h.describe(path, layer.Format).Parent, h.describe(below, belowFormat).Identity
		if layer.Format == "qcow2" {
			identity = disk.None
		}
		if parent == nil || filepath.Base(parent.Name) != filepath.Base(below) || parent.Identity != identity {
			h.t.Errorf("%s names %+v, below it lies %s, %s", path, parent, below, identity)
		}
		below, belowFormat = path, layer.Format
	}
}

// TestChainsOfEveryFormat commits two layers and merges them one by one. Each time another implementation reads the
// whole disk as the replica's view has it.
func TestChainsOfEveryFormat(t *testing.T) {
	for i, c := range combinations {
		t.Run(c.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(i), 11))
			h := newHost(t, kind{base: c.base, differencing: c.differencing}, c.device)
			now, err := h.adopt(rng)
			check(t, err)
			h.agree("adopted", now)
			now = h.resync(rng, 1, now)
			h.agree("one layer", now)
			now = h.resync(rng, 2, now)
			h.agree("two layers", now)
			for _, id := range diskIDs {
				h.linked(id)
				layers := h.disk(id).Layers
				if len(layers) != 2 || layers[0].Format != c.layers || !strings.HasSuffix(layers[0].File, format.Extension(c.layers)) {
					t.Errorf("disk %s has the layers %+v", id, layers)
				}
			}
			h.mergeLowest(now)
			check(t, h.recover())
			h.agree("merged", now)
			wantContent(t, h.world, now)
			check(t, h.checkSettled(recordOf(t, h.world)))
			check(t, h.undoubted())
		})
	}
}

// mergeLowest merges one layer of each disk: the base has its identity then, and the layer above stands on the base.
func (h *host) mergeLowest(want models) {
	h.t.Helper()
	for _, id := range diskIDs {
		d := h.disk(id)
		merged := h.describe(h.path(d.Layers[0].File), d.Layers[0].Format).Identity
		check(h.t, h.merger.mergeLayer(context.Background(), h.vm(), Step{Disk: id, Layer: d.Layers[0].File}))
		if d = h.disk(id); len(d.Layers) != 1 {
			h.t.Fatalf("disk %s has the layers %+v", id, d.Layers)
		}
		h.linked(id)
		if merged == disk.None || d.Base.Device != "" {
			continue
		}
		if base := h.describe(h.path(d.Base.File), d.Base.Format); base.Identity != merged || base.Dirty {
			h.t.Errorf("disk %s: the base has the identity %s, the merged layer had %s; dirty: %t", id, base.Identity, merged, base.Dirty)
		}
	}
	h.agree("half merged", want)
}

// TestNobodyElseReadsAHalfMergedChain stops a merge in the middle: other programs refuse the layers, and the replica
// sees what was committed.
func TestNobodyElseReadsAHalfMergedChain(t *testing.T) {
	for _, f := range []replication.Format{"vhdx", "vhd"} {
		t.Run(string(f), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 12))
			h := newHost(t, kind{base: f}, false)
			now, err := h.adopt(rng)
			check(t, err)
			now = h.resync(rng, 1, now)
			now = h.resync(rng, 2, now)
			check(t, h.vm().Acquire())
			_, err = h.vm().StartMerge("root", h.disk("root").Layers[0].File, 1)
			check(t, err)
			opened, err := h.vm().Disk("root")
			check(t, err)
			layer := opened.Layers()[0]
			check(t, opened.TakeIdentity(0))
			check(t, copySome(layer, opened.Base()))
			check(t, h.vm().Release())
			for _, layer := range h.disk("root").Layers {
				if _, err := others(h.path(layer.File), f, true); err == nil {
					t.Errorf("%s was read", layer.File)
				}
			}
			wantContent(t, h.world, now)
			check(t, h.recover())
			h.agree("merged", now)
		})
	}
}

// copySome merges the first extent that the layer holds.
func copySome(layer disk.Layer, base disk.Disk) error {
	for extent, err := range layer.Extents(0, layer.Size()) {
		if err != nil {
			return err
		}
		switch extent.Kind {
		case disk.Absent:
			continue
		case disk.Data:
			content := make([]byte, extent.Length)
			if _, err := layer.ReadAt(content, extent.Offset); err != nil {
				return err
			}
			_, err := base.WriteAt(content, extent.Offset)
			return err
		default:
			return base.Unmap(extent.Offset, extent.Length)
		}
	}
	return errors.New("the layer holds nothing")
}

func recordOf(t *testing.T, w *world) chain.Record {
	t.Helper()
	record, err := w.vm().Record()
	check(t, err)
	return record
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
