package images_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/imagelock"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

// place is a directory with images inside and outside of what the agent may open.
type place struct {
	base, allowed, outside string
}

func newPlace(t *testing.T) place {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	p := place{base: base, allowed: filepath.Join(base, "images"), outside: filepath.Join(base, "secret")}
	for _, directory := range []string{p.allowed, filepath.Join(p.allowed, "pool"), p.outside, p.allowed + "-other"} {
		must(t, os.Mkdir(directory, 0o700))
	}
	for _, file := range []string{p.in("a"), p.in("pool/b"), p.out("c"), p.allowed + "-other/d"} {
		must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	}
	return p
}

func (p place) in(name string) string  { return filepath.Join(p.allowed, name) }
func (p place) out(name string) string { return filepath.Join(p.outside, name) }

func TestWhatMayBeOpened(t *testing.T) {
	p := newPlace(t)
	links := map[string]string{
		p.in("inside"):                 "pool/b",
		p.in("absolute"):               p.in("pool/b"),
		p.in("escape"):                 p.out("c"),
		p.in("relative-escape"):        "../secret/c",
		p.in("directory-escape"):       p.outside,
		p.in("dangling"):               p.in("nothing"),
		p.in("dangling-escape"):        p.out("nothing"),
		p.in("circle"):                 "circle",
		filepath.Join(p.base, "alias"): p.allowed,
		p.out("back"):                  p.in("a"),
	}
	for link, target := range links {
		must(t, os.Symlink(target, link))
	}
	must(t, unix.Mkfifo(p.in("pipe"), 0o600))
	must(t, os.Link(p.out("c"), p.in("hard")))
	must(t, os.WriteFile(p.in("odd"), make([]byte, 1000), 0o600))
	must(t, os.WriteFile(p.in("..odd-name"), make([]byte, 512), 0o600))
	i := newImages(t, []string{p.allowed}, nil)
	cases := []struct{ name, path, reason, says string }{
		{"a file", p.in("a"), "", ""},
		{"a file further down", p.in("pool/b"), "", ""},
		{"a name that begins with dots", p.in("..odd-name"), "", ""},
		{"a path that is not clean", p.allowed + "//pool/../a", "", ""},
		{"a link that stays inside", p.in("inside"), "", ""},
		{"an absolute link that stays inside", p.in("absolute"), "", ""},
		{"the directory under another name", filepath.Join(p.base, "alias/a"), "", ""},
		{"a link from outside to inside", p.out("back"), "", ""},
		{"outside", p.out("c"), failure.ReasonPathOutside, p.allowed},
		{"outside and missing", p.out("nothing"), failure.ReasonPathOutside, p.allowed},
		{"a directory whose name begins alike", p.allowed + "-other/d", failure.ReasonPathOutside, p.allowed},
		{"out by dots", p.allowed + "/../secret/c", failure.ReasonPathOutside, p.out("c")},
		{"a link that leaves", p.in("escape"), failure.ReasonPathOutside, p.out("c")},
		{"a relative link that leaves", p.in("relative-escape"), failure.ReasonPathOutside, p.out("c")},
		{"a directory link that leaves", p.in("directory-escape/c"), failure.ReasonPathOutside, p.out("c")},
		{"missing", p.in("nothing"), failure.ReasonImageMissing, p.in("nothing")},
		{"missing below a file", p.in("a/x"), failure.ReasonImageUnreadable, p.in("a/x")},
		{"a link to nothing", p.in("dangling"), failure.ReasonImageMissing, p.in("dangling")},
		{"a link to nothing outside", p.in("dangling-escape"), failure.ReasonImageMissing, p.in("dangling-escape")},
		{"a link to itself", p.in("circle"), failure.ReasonImageUnreadable, p.in("circle")},
		{"a directory", p.in("pool"), failure.ReasonImageUnreadable, "directory"},
		{"the image directory itself", p.allowed, failure.ReasonImageUnreadable, "directory"},
		{"a pipe", p.in("pipe"), failure.ReasonImageUnreadable, p.in("pipe")},
		{"a file with another name elsewhere", p.in("hard"), failure.ReasonImageUnreadable, "2 names"},
		{"an odd size", p.in("odd"), failure.ReasonImageUnreadable, "1000 bytes"},
		{"a relative path", "images/a", failure.ReasonInvalidArgument, "absolute"},
		{"no path", "", failure.ReasonInvalidArgument, "absolute"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, err := i.Open(c.path, replication.FormatRaw, imagelock.Read)
			if c.reason == "" {
				must(t, err)
				sameStamp(t, i, c.path, d)
				must(t, d.Close())
				return
			}
			wantFailure(t, err, c.reason, c.says)
			if d != nil {
				t.Error("an image came with the error")
			}
		})
	}
}

func sameStamp(t *testing.T, i *images.Images, path string, d disk.Image) {
	t.Helper()
	opened, err := d.Stamp()
	must(t, err)
	atPath, err := i.Stamp(path)
	must(t, err)
	if difference := opened.Difference(atPath); difference != "" {
		t.Errorf("the stamps differ: %s", difference)
	}
}

func TestAccess(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	d, err := i.Open(p.in("a"), replication.FormatRaw, imagelock.Write)
	must(t, err)
	_, err = d.WriteAt([]byte{1}, 0)
	must(t, err)
	_, err = i.Open(p.in("a"), replication.FormatRaw, imagelock.Read)
	wantFailure(t, err, failure.ReasonImageInUse, p.in("a"))
	if _, err := i.Stamp(p.in("a")); err != nil {
		t.Errorf("an image in use has no stamp: %v", err)
	}
	must(t, d.Close())
	d, err = i.Open(p.in("a"), replication.FormatRaw, imagelock.Read)
	must(t, err)
	defer d.Close()
	if _, err := d.WriteAt([]byte{1}, 0); err == nil {
		t.Error("an image opened for reading was written to")
	}
}

// TestAStampLeavesTheLocks asks that a stamp does not take the open image's locks away.
func TestAStampLeavesTheLocks(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	d, err := i.Open(p.in("a"), replication.FormatRaw, imagelock.Read)
	must(t, err)
	defer d.Close()
	_, err = i.Stamp(p.in("a"))
	must(t, err)
	output, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 512", p.in("a")).CombinedOutput()
	if err == nil || !strings.Contains(string(output), "lock") {
		t.Errorf("a writer was let in: %v: %s", err, output)
	}
}

func TestFormatsAreStated(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	if output, err := exec.Command("qemu-img", "create", "-f", "qcow2", p.in("q"), "1M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img is needed: %v: %s", err, output)
	}
	must(t, os.Truncate(p.in("q"), 1<<20))
	for _, format := range []replication.Format{"", "vmdk", "RAW"} {
		_, err := i.Open(p.in("q"), format, imagelock.Read)
		wantFailure(t, err, failure.ReasonUnsupported, p.in("q"))
		_, err = i.OpenChain(p.in("q"), format, nil)
		wantFailure(t, err, failure.ReasonUnsupported, p.in("q"))
	}
	for _, format := range []replication.Format{"vhd", "vhdx"} {
		_, err := i.Open(p.in("q"), format, imagelock.Read)
		wantFailure(t, err, failure.ReasonImageUnreadable, p.in("q"))
	}
	d, err := i.Open(p.in("q"), replication.FormatRaw, imagelock.Read)
	must(t, err)
	defer d.Close()
	head := make([]byte, 4)
	if _, err := d.ReadAt(head, 0); err != nil || string(head) != "QFI\xfb" {
		t.Errorf("a raw image that looks like another reads %q, %v", head, err)
	}
}

func TestDevices(t *testing.T) {
	p := newPlace(t)
	backing := p.out("backing")
	must(t, os.WriteFile(backing, make([]byte, 1<<20), 0o600))
	node := disktest.Loop(t, backing)
	link := p.out("volume")
	must(t, os.Symlink(node, link))
	stray := p.out("stray")
	must(t, os.Symlink(p.out("c"), stray))
	must(t, os.Symlink(node, p.in("to-device")))
	cases := []struct{ name, path, pattern, reason, says string }{
		{"named", node, node, "", ""},
		{"matched", node, "/dev/loop*", "", ""},
		{"a link that a pattern names", link, p.out("vol*"), "", ""},
		{"a link to a device that a pattern names", link, "/dev/loop*", "", ""},
		{"not named", node, "/dev/sd*", failure.ReasonPathOutside, "/dev/sd*"},
		{"a wildcard does not cross directories", node, "/*", failure.ReasonPathOutside, "/*"},
		{"a link that a pattern names to a file", stray, p.out("st*"), failure.ReasonPathOutside, p.out("c")},
		{"a file that a pattern names", p.out("c"), p.out("*"), failure.ReasonImageUnreadable, "not a block device"},
		{"another kind of device", "/dev/null", "/dev/*", failure.ReasonImageUnreadable, "not a block device"},
		{"missing", "/dev/loop-none", "/dev/loop*", failure.ReasonImageMissing, "/dev/loop-none"},
		{"a link among the images", p.in("to-device"), "/dev/sd*", failure.ReasonPathOutside, node},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			i := newImages(t, []string{p.allowed}, []string{c.pattern})
			d, err := i.Open(c.path, replication.FormatRaw, imagelock.Write)
			if c.reason != "" {
				wantFailure(t, err, c.reason, c.says)
				return
			}
			must(t, err)
			defer d.Close()
			if d.Size() != 1<<20 {
				t.Errorf("%d bytes", d.Size())
			}
			sameStamp(t, i, c.path, d)
			_, err = i.Open(c.path, replication.FormatVHDX, imagelock.Read)
			wantFailure(t, err, failure.ReasonUnsupported, c.path)
		})
	}
}

func TestWhatCannotBeAllowed(t *testing.T) {
	p := newPlace(t)
	for _, pattern := range []string{"loop0", "", "/dev/[", "dev/*"} {
		_, err := images.New(nil, []string{pattern})
		wantFailure(t, err, failure.ReasonInvalidArgument, pattern)
	}
	for _, directory := range []string{p.in("none"), p.in("a")} {
		_, err := images.New([]string{p.allowed, directory}, nil)
		wantFailure(t, err, failure.ReasonImageMissing, directory)
	}
}

func TestWhereNothingIsAllowed(t *testing.T) {
	p := newPlace(t)
	_, err := newImages(t, nil, nil).Open(p.in("a"), replication.FormatRaw, imagelock.Read)
	wantFailure(t, err, failure.ReasonPathOutside, "nothing")
}

func newImages(t *testing.T, directories, patterns []string) *images.Images {
	t.Helper()
	i, err := images.New(directories, patterns)
	must(t, err)
	t.Cleanup(func() { must(t, i.Close()) })
	return i
}

func wantFailure(t *testing.T, err error, reason, says string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was accepted, want %s", reason)
	}
	if found := failure.Find(err); found.Reason != reason || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %s: %v; want %s that says %s", found.Reason, err, reason, says)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
