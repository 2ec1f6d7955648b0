package format_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// TestConformance is the one table over every format: what each has as a base, and as a layer.
func TestConformance(t *testing.T) {
	for _, f := range replication.Formats {
		t.Run(string(f), func(t *testing.T) {
			disktest.Base(t, subject(func(path string, size int64) (disk.Disk, error) {
				return format.Create(create(t, path), f, format.New{Path: path, SizeBytes: size})
			}, func(path string) (disk.Disk, error) {
				return format.Open(open(t, path), f, format.Options{Path: path, Access: imagelock.Write})
			}))
		})
		if format.Extension(f) == "" {
			continue
		}
		t.Run(string(f)+" layer", func(t *testing.T) {
			disktest.Layer(t, subject(func(path string, size int64) (disk.Disk, error) {
				return format.CreateLayer(create(t, path), f, format.New{Path: path, SizeBytes: size})
			}, func(path string) (disk.Disk, error) {
				return format.OpenLayer(open(t, path), f, format.Options{Path: path, Access: imagelock.Write})
			}))
		})
	}
}

func subject(make func(string, int64) (disk.Disk, error), again func(string) (disk.Disk, error)) disktest.Subject {
	paths := map[disk.Disk]string{}
	return disktest.Subject{
		Open: func(t *testing.T, size int64) disk.Disk {
			path := filepath.Join(t.TempDir(), "disk")
			d, err := make(path, size)
			must(t, err)
			t.Cleanup(func() { d.Close() })
			paths[d] = path
			return d
		},
		Reopen: func(t *testing.T, d disk.Disk) disk.Disk {
			must(t, d.Close())
			opened, err := again(paths[d])
			must(t, err)
			t.Cleanup(func() { opened.Close() })
			paths[opened] = paths[d]
			return opened
		},
	}
}

// drivers are QEMU's names of the formats.
var drivers = map[replication.Format]string{"raw": "raw", "vhd": "vpc", "vhdx": "vhdx", "qcow2": "qcow2"}

// options keep qemu-img from rounding a VHD's size.
var options = map[replication.Format][]string{"vhd": {"-o", "force_size=on"}}

// TestFilesOfQEMU reads what qemu-img made, and has qemu-img compare what was made here.
func TestFilesOfQEMU(t *testing.T) {
	const size = 24<<20 + 512*4
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(7, 7))
	for i := 3 << 20; i < 9<<20; i++ {
		content[i] = byte(random.Uint32())
	}
	for _, f := range replication.Formats {
		t.Run(string(f), func(t *testing.T) {
			directory := t.TempDir()
			source, theirs, ours := filepath.Join(directory, "source"), filepath.Join(directory, "theirs"), filepath.Join(directory, "ours")
			must(t, os.WriteFile(source, content, 0o600))
			run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", drivers[f]}, options[f]...), source, theirs)...)
			part, err := format.OpenPart(open(t, theirs), f, format.Options{Path: theirs})
			must(t, err)
			defer part.Close()
			got := make([]byte, size)
			if _, err := part.ReadAt(got, 0); err != nil || part.Size() != size || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v, the same content: %t", part.Size(), err, bytes.Equal(got, content))
			}
			image, err := format.Create(create(t, ours), f, format.New{Path: ours, SizeBytes: size})
			must(t, err)
			_, err = image.WriteAt(content[3<<20:9<<20], 3<<20)
			must(t, err)
			must(t, image.Close())
			run(t, "qemu-img", "compare", "-f", "raw", "-F", drivers[f], source, ours)
			info, err := format.Describe(open(t, ours), f, ours)
			if err != nil || info.Format != string(f) || info.SizeBytes != size || info.Dirty {
				t.Errorf("%+v, %v", info, err)
			}
			for finding, err := range format.Check(open(t, ours), f, ours) {
				t.Errorf("%+v, %v", finding, err)
			}
		})
	}
}

// TestAFormatIsNeverGuessed states each format for an image of each other one.
func TestAFormatIsNeverGuessed(t *testing.T) {
	directory := t.TempDir()
	for _, f := range replication.Formats {
		path := filepath.Join(directory, string(f))
		image, err := format.Create(create(t, path), f, format.New{Path: path, SizeBytes: 8 << 20})
		must(t, err)
		must(t, image.Close())
	}
	for _, held := range replication.Formats {
		for _, stated := range replication.Formats {
			if held == stated || stated == replication.FormatRaw {
				continue // as raw, anything is bytes
			}
			path := filepath.Join(directory, string(held))
			_, err := format.Open(open(t, path), stated, format.Options{Path: path})
			wantFailure(t, err, failure.ReasonImageUnreadable, "signature", path, "never guessed")
			_, err = format.OpenPart(open(t, path), stated, format.Options{Path: path})
			wantFailure(t, err, failure.ReasonImageUnreadable, "signature", path, "never guessed")
			_, err = format.Describe(open(t, path), stated, path)
			wantFailure(t, err, failure.ReasonImageUnreadable, "signature", path, "never guessed")
		}
		_, err := format.Open(open(t, filepath.Join(directory, string(held))), "vmdk", format.Options{Path: "/images/x"})
		wantFailure(t, err, failure.ReasonUnsupported, "/images/x", "vmdk", "vhdx")
	}
}

func TestABaseIsNoDifferencingDisk(t *testing.T) {
	directory := t.TempDir()
	for _, f := range replication.Formats {
		if format.Extension(f) == "" {
			continue
		}
		path := filepath.Join(directory, string(f))
		layer, err := format.CreateLayer(create(t, path), f, format.New{Path: path, SizeBytes: 8 << 20})
		must(t, err)
		parent := disk.Parent{Name: "base", Path: "/images/base", Format: string(f), Identity: disk.Identity{1}}
		must(t, layer.Seal(parent))
		must(t, layer.Close())
		_, err = format.Open(open(t, path), f, format.Options{Path: path})
		wantFailure(t, err, failure.ReasonImageUnreadable, path, "differencing", "base")
		part, err := format.OpenPart(open(t, path), f, format.Options{Path: path})
		must(t, err)
		if found, ok := part.Parent(); !ok || found.Name != "base" || found.Format != string(f) {
			t.Errorf("%s: the parent is %+v, %t", f, found, ok)
		}
		must(t, part.Close())
	}
}

func TestAnImageIsLocked(t *testing.T) {
	for _, f := range replication.Formats {
		path := filepath.Join(t.TempDir(), string(f))
		image, err := format.Create(create(t, path), f, format.New{Path: path, SizeBytes: 8 << 20})
		must(t, err)
		_, err = format.OpenPart(open(t, path), f, format.Options{Path: path})
		wantFailure(t, err, failure.ReasonImageInUse, path)
		must(t, image.Close())
		part, err := format.OpenPart(open(t, path), f, format.Options{Path: path})
		must(t, err)
		_, err = format.Open(open(t, path), f, format.Options{Path: path, Access: imagelock.Write})
		wantFailure(t, err, failure.ReasonImageInUse, path)
		must(t, part.Close())
	}
}

func TestAStampSeesAWrite(t *testing.T) {
	for _, f := range replication.Formats {
		path := filepath.Join(t.TempDir(), string(f))
		image, err := format.Create(create(t, path), f, format.New{Path: path, SizeBytes: 8 << 20})
		must(t, err)
		before, err := image.Stamp()
		must(t, err)
		_, err = image.WriteAt(make([]byte, 4096), 4096)
		must(t, err)
		after, err := image.Stamp()
		must(t, err)
		if before == after {
			t.Errorf("%s: the write does not show", f)
		}
		must(t, image.Close())
		part, err := format.OpenPart(open(t, path), f, format.Options{Path: path})
		must(t, err)
		opened, err := part.Stamp()
		must(t, err)
		atPath, err := disk.StampOf(open(t, path).fd(t))
		must(t, err)
		if difference := opened.Difference(atPath); difference != "" {
			t.Errorf("%s: %s", f, difference)
		}
		must(t, part.Close())
	}
}

func TestWhatAFormatCanHold(t *testing.T) {
	const tib = 1 << 40
	cases := []struct {
		f      replication.Format
		size   int64
		sector int
		reason string
	}{
		{"raw", 64 * tib, 4096, ""}, {"raw", 512, 512, ""},
		{"vhdx", 64 * tib, 4096, ""}, {"vhdx", 512, 512, ""},
		{"qcow2", 64 * tib, 512, ""}, {"qcow2", 1 << 30, 4096, failure.ReasonSectorMismatch},
		{"vhd", 2040 << 30, 512, ""}, {"vhd", 2040<<30 + 512, 512, failure.ReasonLimit},
		{"vhd", 1 << 30, 4096, failure.ReasonSectorMismatch},
		{"raw", 64*tib + 512, 512, failure.ReasonInvalidArgument}, {"raw", 513, 512, failure.ReasonInvalidArgument},
		{"vdi", 1 << 30, 512, failure.ReasonUnsupported}, {"", 1 << 30, 512, failure.ReasonUnsupported},
	}
	for _, c := range cases {
		err := format.CheckSupport(c.f, c.size, c.sector)
		if c.reason == "" {
			must(t, err)
			continue
		}
		wantFailure(t, err, c.reason)
		if failure.Find(err).Remedy == "" && c.reason != failure.ReasonInvalidArgument {
			t.Errorf("%v does not say what to do", err)
		}
	}
}

func TestLayersOfBases(t *testing.T) {
	want := map[replication.Format]replication.Format{"raw": "qcow2", "qcow2": "qcow2", "vhd": "vhd", "vhdx": "vhdx"}
	extensions := map[replication.Format]string{"raw": "", "qcow2": ".qcow2", "vhd": ".avhd", "vhdx": ".avhdx"}
	for base, layer := range want {
		if got := format.LayerFormat(base, replication.DifferencingByBase); got != layer {
			t.Errorf("a layer on %s is %s", base, got)
		}
		if got := format.LayerFormat(base, replication.DifferencingQCOW2); got != "qcow2" {
			t.Errorf("a layer on %s by policy is %s", base, got)
		}
		if got := format.Extension(base); got != extensions[base] {
			t.Errorf("a layer of format %s is named %q", base, got)
		}
	}
	guesses := map[string]replication.Format{"a.vhdx": "vhdx", "A.AVHDX": "vhdx", "a.vhd": "vhd", "a.avhd": "vhd",
		"a.qcow2": "qcow2", "a.raw": "raw", "a.img": "", "vhdx": ""}
	for name, f := range guesses {
		if got := format.Guess(name); got != f {
			t.Errorf("%s suggests %q", name, got)
		}
	}
}

// file is a file of the host that the test closes.
type file struct{ durable.File }

func (f file) fd(t *testing.T) uintptr {
	t.Helper()
	fd, ok := f.Fd()
	if !ok {
		t.Fatal("a file of the host has no descriptor")
	}
	return fd
}

func open(t *testing.T, path string) file { return hostFile(t, path, os.O_RDWR) }

func create(t *testing.T, path string) file {
	return hostFile(t, path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func hostFile(t *testing.T, path string, flags int) file {
	t.Helper()
	opened, err := os.OpenFile(path, flags, 0o600)
	must(t, err)
	t.Cleanup(func() { opened.Close() })
	return file{durable.NewFile(opened)}
}

func run(t *testing.T, name string, arguments ...string) {
	t.Helper()
	if output, err := exec.Command(name, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(arguments, " "), err, output)
	}
}

func wantFailure(t *testing.T, err error, reason string, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was accepted, want %s", reason)
	}
	found := failure.Find(err)
	if found.Reason != reason {
		t.Fatalf("got %s: %v; want %s", found.Reason, err, reason)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			t.Fatalf("%v does not say %q", err, part)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
