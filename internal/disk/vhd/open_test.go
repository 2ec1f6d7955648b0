package vhd_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
	"vmreplica/internal/failure"
)

func TestWhatCannotBeMadeIsRefused(t *testing.T) {
	cases := map[string]struct {
		options vhd.Options
		says    string
	}{
		"too large":        {vhd.Options{SizeBytes: vhd.MaxSize + 512}, "2040 GiB"},
		"too large, fixed": {vhd.Options{SizeBytes: vhd.MaxSize + 512, Fixed: true}, "use vhdx"},
		"no size":          {vhd.Options{}, "0 bytes"},
		"half a sector":    {vhd.Options{SizeBytes: 1000}, "multiple of 512"},
		"strange blocks":   {vhd.Options{SizeBytes: 1 << 20, BlockBytes: 1 << 20}, "512 KiB or 2 MiB"},
	}
	for name, c := range cases {
		for kind, create := range map[string]func(durable.File) error{
			"base":         func(f durable.File) error { _, err := vhd.Create(f, c.options); return err },
			"differencing": func(f durable.File) error { _, err := vhd.CreateDifferencing(f, c.options); return err },
		} {
			err := create(newFile(t, filepath.Join(t.TempDir(), "disk")))
			if err == nil || failure.Find(err).Class != failure.Invalid {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if kind == "base" && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
		}
	}
	path := twoBlocks(t, false)
	_, err := vhd.Create(hostFile(t, path, durable.ReadWrite), vhd.Options{SizeBytes: 1 << 20})
	if failure.Find(err).Class != failure.Exists {
		t.Errorf("over an image: %v", err)
	}
}

func TestEachKindIsOpenedAsWhatItIs(t *testing.T) {
	path := twoBlocks(t, true)
	_, err := vhd.Open(hostFile(t, path, durable.ReadOnly), durable.ReadOnly)
	if failure.Find(err).Class != failure.Precondition || !strings.Contains(err.Error(), `"base.vhd"`) {
		t.Errorf("a differencing disk as a base: %v", err)
	}
	_, err = vhd.OpenDifferencing(hostFile(t, twoBlocks(t, false), durable.ReadOnly), durable.ReadOnly)
	if failure.Find(err).Class != failure.Precondition || !strings.Contains(err.Error(), "dynamic") {
		t.Errorf("a base as a differencing disk: %v", err)
	}
}

// TestGeometry compares with what Windows and QEMU make of the same sizes.
func TestGeometry(t *testing.T) {
	for size, want := range map[int64]string{
		4 << 20: "120/4/17", 25171968: "723/4/17", 2040 << 30: "65535/16/255", 512: "0/4/17",
		65535 * 16 * 63 * 512: "16191/16/255", 500 << 20: "1015/16/63",
	} {
		file := newFile(t, filepath.Join(memoryDir(t), "disk"))
		base, err := vhd.Create(file, vhd.Options{SizeBytes: size})
		must(t, err)
		info, err := vhd.Describe(file)
		must(t, err)
		must(t, base.Close())
		found := ""
		for _, property := range info.Properties {
			if property.Name == "Disk Geometry" {
				found = property.Value
			}
		}
		if found != want || info.SizeBytes != size || info.Identity != base.Identity() || info.UnitBytes != 2<<20 {
			t.Errorf("%d bytes: geometry %s, want %s; %+v", size, found, want, info)
		}
	}
}

func TestADiskOpenedForReadingIsNotChanged(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		path := twoBlocks(t, differencing)
		i, err := openImage(hostFile(t, path, durable.ReadOnly), differencing, durable.ReadOnly)
		must(t, err)
		_, err = i.WriteAt(content(1), 0)
		for call, err := range map[string]error{"WriteAt": err, "Zero": i.Zero(0, 4096), "Unmap": i.Unmap(0, 4096),
			"SetIdentity": i.SetIdentity(disk.Identity{1})} {
			if err == nil {
				t.Errorf("%s was accepted", call)
			}
		}
		must(t, i.Flush())
		must(t, i.Close())
	}
}

func TestParentsComeBack(t *testing.T) {
	for _, parent := range []disk.Parent{
		{Name: "base.vhd", Path: "/images/base.vhd", Format: "vhd", Identity: disk.Identity{1, 2, 3}},
		{Name: "../über/Grundlage ☃.vhd", Path: "/x/über/Grundlage ☃.vhd", Format: "vhd", Identity: disk.Identity{4}},
		{Name: strings.Repeat("n", 251) + ".vhd", Path: "/" + strings.Repeat("p", 4095), Format: "vhd"},
		{Name: "no path.vhd", Format: "vhd"},
	} {
		path := filepath.Join(memoryDir(t), "disk")
		layer, err := vhd.CreateDifferencing(newFile(t, path), vhd.Options{SizeBytes: 1 << 20})
		must(t, err)
		must(t, layer.Seal(disk.Parent{Name: "other.vhd", Path: "/o", Format: "vhd"}))
		must(t, layer.Seal(parent))
		if layer.Parent() != parent {
			t.Errorf("sealed %+v, it says %+v", parent, layer.Parent())
		}
		must(t, layer.Close())
		layer, err = vhd.OpenDifferencing(hostFile(t, path, durable.ReadOnly), durable.ReadOnly)
		must(t, err)
		if layer.Parent() != parent {
			t.Errorf("sealed %+v, opened again it says %+v", parent, layer.Parent())
		}
		must(t, layer.Close())
	}
}

func TestParentsThatCannotBeNamedAreRefused(t *testing.T) {
	layer, err := vhd.CreateDifferencing(newFile(t, filepath.Join(memoryDir(t), "disk")), vhd.Options{SizeBytes: 1 << 20})
	must(t, err)
	defer layer.Close()
	for _, parent := range []disk.Parent{
		{Name: "base.raw", Format: "raw"}, {Format: "vhd"}, {Name: "/dev/sda", Format: "vhd"},
		{Name: `a\b`, Format: "vhd"}, {Name: "a\x00", Format: "vhd"}, {Name: "\xff", Format: "vhd"},
		{Name: strings.Repeat("n", 256), Format: "vhd"}, {Name: "a", Path: "/" + strings.Repeat("p", 4096), Format: "vhd"},
	} {
		if err := layer.Seal(parent); failure.Find(err).Class != failure.Invalid {
			t.Errorf("%.40q: %v", parent.Name, err)
		}
	}
	if layer.Parent() != (disk.Parent{}) {
		t.Errorf("%+v", layer.Parent())
	}
}

// TestAFailedSyncIsFinal fails each sync in turn: the call says so, and so does every later write and Flush.
func TestAFailedSyncIsFinal(t *testing.T) {
	for _, differencing := range []bool{false, true} {
		r := durabletest.New()
		file, err := r.Dir().Create("disk")
		must(t, err)
		i := makeImage(t, file, differencing)
		_, err = i.WriteAt(content(1), 0)
		must(t, err)
		r.FailFrom(r.Ops()+2, syscall.EIO)
		if err := i.Flush(); !errors.Is(err, syscall.EIO) {
			t.Errorf("the flush: %v", err)
		}
		r.FailFrom(0, nil)
		_, writing := i.WriteAt(content(1), 0)
		for call, err := range map[string]error{"write": writing, "flush": i.Flush(), "identity": i.SetIdentity(disk.None)} {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s after a failed flush: %v", call, err)
			}
		}
	}
}
