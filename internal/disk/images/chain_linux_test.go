package images_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/format"
	"vmreplica/internal/disk/images"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
	"vmreplica/internal/replication"
)

const chainSize = 20<<20 + 512*3

// TestChainsOfQEMU reads what qemu-img and qemu-io made as qemu-img reads it.
func TestChainsOfQEMU(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	cases := []struct {
		name string
		make func(t *testing.T)
		want []string
	}{
		{"alone", func(t *testing.T) { overlay(t, p.in("top"), chainSize) }, nil},
		{"over raw", func(t *testing.T) {
			scribbled(t, p.in("base"), chainSize)
			overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "raw")
		}, []string{"base"}},
		{"over qcow2 over raw in another directory", func(t *testing.T) {
			scribbled(t, p.in("base"), chainSize)
			overlay(t, p.in("pool/middle"), chainSize, "-b", "../base", "-F", "raw")
			overlay(t, p.in("top"), chainSize, "-b", p.in("pool/middle"), "-F", "qcow2")
		}, []string{"pool/middle", "base"}},
		{"over a shorter one", func(t *testing.T) {
			scribbled(t, p.in("base"), chainSize/2/512*512)
			overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "raw")
		}, []string{"base"}},
		{"over a longer one", func(t *testing.T) {
			scribbled(t, p.in("base"), chainSize*2)
			overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "raw")
		}, []string{"base"}},
		{"over VHDX", func(t *testing.T) {
			command(t, "qemu-img", "create", "-q", "-f", "vhdx", p.in("base"), fmt.Sprint(chainSize))
			command(t, "qemu-io", "-f", "vhdx", "-c", "write -P 7 1M 9M", p.in("base"))
			overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "vhdx")
		}, []string{"base"}},
		{"over VHD", func(t *testing.T) {
			command(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", p.in("base"), fmt.Sprint(chainSize))
			command(t, "qemu-io", "-f", "vpc", "-c", "write -P 7 1M 9M", p.in("base"))
			overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "vpc")
		}, []string{"base"}},
		{"through a link", func(t *testing.T) {
			scribbled(t, p.in("pool/base"), chainSize)
			must(t, os.Symlink("pool/base", p.in("link")))
			overlay(t, p.in("top"), chainSize, "-b", "link", "-F", "raw")
		}, []string{"pool/base"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"top", "base", "pool/middle", "pool/base", "link"} {
				os.Remove(p.in(name))
			}
			c.make(t)
			plain := p.out("plain")
			command(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", p.in("top"), plain)
			content, err := os.ReadFile(plain)
			must(t, err)
			var want []string
			for _, name := range c.want {
				want = append(want, p.in(name))
			}
			readsAs(t, i, p.in("top"), replication.FormatQCOW2, want, content)
		})
	}
}

// readsAs opens an image with the chain that its headers name, and wants that chain and that content.
func readsAs(t *testing.T, i *images.Images, path string, f replication.Format, want []string, content []byte) {
	t.Helper()
	backing, err := i.Backing(path, f)
	must(t, err)
	if !slices.Equal(backing, want) {
		t.Errorf("it stands on %q, want %q", backing, want)
	}
	chain, err := i.OpenChain(path, f, backing)
	must(t, err)
	defer chain.Close()
	got := make([]byte, len(content))
	if _, err := chain.ReadAt(got, 0); err != nil || chain.Size() != int64(len(content)) || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d, %v, the same content: %t", chain.Size(), len(content), err, bytes.Equal(got, content))
	}
	for e, err := range chain.Extents(0, chain.Size()) {
		must(t, err)
		if e.Kind != disk.Data && bytes.ContainsFunc(content[e.Offset:e.End()], func(r rune) bool { return r != 0 }) {
			t.Errorf("%+v holds data", e)
		}
	}
	opened, err := chain.Stamp()
	must(t, err)
	atPath, err := i.Stamp(path, backing...)
	must(t, err)
	if difference := opened.Difference(atPath); difference != "" {
		t.Errorf("the stamps differ: %s", difference)
	}
}

// TestChainsOfHyperV makes a base and two differencing disks of each of Hyper-V's formats and reads them.
func TestChainsOfHyperV(t *testing.T) {
	for _, f := range []replication.Format{replication.FormatVHD, replication.FormatVHDX} {
		t.Run(string(f), func(t *testing.T) {
			p := newPlace(t)
			i := newImages(t, []string{p.allowed}, nil)
			content := make([]byte, chainSize)
			tree, err := durable.OpenDir(p.allowed)
			must(t, err)
			defer tree.Close()
			base := made(t, tree, "base", f, false)
			write(t, base, content, 1<<20, 9<<20)
			parent := disk.Parent{Name: "base", Path: p.in("base"), Format: string(f), Identity: identityOf(t, base)}
			must(t, base.Close())
			for _, name := range []string{"one", "two"} {
				layer := made(t, tree, name, f, true)
				write(t, layer, content, 2<<20, 4096)
				write(t, layer, content, 5<<20, 3<<20)
				must(t, layer.Zero(6<<20, 64<<10))
				clear(content[6<<20 : 6<<20+64<<10])
				identity := identityOf(t, layer)
				must(t, layer.(disk.Layer).Seal(parent))
				must(t, layer.Close())
				parent = disk.Parent{Name: name, Path: p.in(name), Format: string(f), Identity: identity}
			}
			readsAs(t, i, p.in("two"), f, []string{p.in("one"), p.in("base")}, content)

			backing := []string{p.in("one"), p.in("base")}
			before, err := i.Stamp(p.in("two"), backing...)
			must(t, err)
			another := made(t, tree, "another", f, false)
			must(t, another.Close())
			must(t, os.Rename(p.in("another"), p.in("base")))
			_, err = i.OpenChain(p.in("two"), f, backing)
			wantFailure(t, err, failure.ReasonImageUnreadable, "identity")
			after, err := i.Stamp(p.in("two"), backing...)
			must(t, err)
			if difference := before.Difference(after); !strings.Contains(difference, "stands on") {
				t.Errorf("another base shows as %q", difference)
			}
		})
	}
}

func made(t *testing.T, tree durable.Dir, name string, f replication.Format, layer bool) disk.Disk {
	t.Helper()
	file, err := tree.Create(name)
	must(t, err)
	var d disk.Disk
	if layer {
		d, err = format.CreateLayer(file, f, format.New{Path: name, SizeBytes: chainSize})
	} else {
		d, err = format.Create(file, f, format.New{Path: name, SizeBytes: chainSize})
	}
	must(t, err)
	return d
}

func write(t *testing.T, d disk.Disk, content []byte, off, n int64) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(off), uint64(n)))
	for at := off; at < off+n; at++ {
		content[at] = byte(random.Uint32())
	}
	_, err := d.WriteAt(content[off:off+n], off)
	must(t, err)
}

func identityOf(t *testing.T, d disk.Disk) disk.Identity {
	t.Helper()
	must(t, d.Flush())
	identified, ok := d.(disk.Identified)
	if !ok {
		t.Fatalf("%T has no identity", d)
	}
	return identified.Identity()
}

// TestChainsThatAreNotFollowed asks for the refusal of every parent that must not be opened.
func TestChainsThatAreNotFollowed(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	scribbled(t, p.in("base"), chainSize)
	scribbled(t, p.out("base"), chainSize)
	must(t, os.Symlink(p.out("base"), p.in("escape")))
	rebase := func(name, to, f string) {
		command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", to, "-F", f, p.in(name))
	}
	for name, on := range map[string][2]string{
		"outside": {p.out("base"), "raw"}, "dots": {"../secret/base", "raw"}, "link": {"escape", "raw"}, "gone": {"none", "raw"},
		"device": {"/dev/null", "raw"}, "other": {"base", "vmdk"}, "url": {"nbd://127.0.0.1/x", "raw"},
		"json": {"json:{\"driver\":\"raw\"}", "raw"}, "self": {"self", "qcow2"}, "lies": {"base", "qcow2"},
	} {
		overlay(t, p.in(name), chainSize)
		rebase(name, on[0], on[1])
	}
	overlay(t, p.in("a2"), chainSize)
	overlay(t, p.in("b2"), chainSize)
	rebase("a2", "b2", "qcow2")
	rebase("b2", "a2", "qcow2")
	unstated(t, p.in("unstated"), "base")
	cases := []struct{ name, reason, says string }{
		{"outside", failure.ReasonPathOutside, "stands on it"}, {"dots", failure.ReasonPathOutside, p.out("base")},
		{"link", failure.ReasonPathOutside, p.out("base")}, {"gone", failure.ReasonImageMissing, p.in("none")},
		{"device", failure.ReasonPathOutside, "/dev/null"}, {"other", failure.ReasonImageUnreadable, "vmdk"},
		{"url", failure.ReasonImageUnreadable, "nbd://"}, {"json", failure.ReasonImageUnreadable, "json:"},
		{"self", failure.ReasonImageUnreadable, "stands on"}, {"a2", failure.ReasonImageUnreadable, p.in("a2")},
		{"lies", failure.ReasonImageUnreadable, "signature"}, {"unstated", failure.ReasonImageUnreadable, "without a format"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := i.Backing(p.in(c.name), replication.FormatQCOW2)
			wantFailure(t, err, c.reason, c.says)
			_, err = i.OpenChain(p.in(c.name), replication.FormatQCOW2, []string{p.in("base")})
			if err == nil {
				t.Error("it was opened")
			}
		})
	}
	for name := range map[string]bool{"unstated": true, "outside": true} {
		_, err := i.Backing(p.in(name), replication.FormatQCOW2)
		if failure.Find(err).Remedy == "" {
			t.Errorf("%v does not say what to do", err)
		}
	}
}

// TestOnlyTheRecordedChainIsFollowed changes what an image stands on after it was recorded.
func TestOnlyTheRecordedChainIsFollowed(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	scribbled(t, p.in("base"), chainSize)
	scribbled(t, p.in("other"), chainSize)
	overlay(t, p.in("middle"), chainSize, "-b", "base", "-F", "raw")
	overlay(t, p.in("top"), chainSize, "-b", "middle", "-F", "qcow2")
	recorded, err := i.Backing(p.in("top"), replication.FormatQCOW2)
	must(t, err)
	for name, backing := range map[string][]string{
		"nothing": nil, "one": recorded[:1], "another": {p.in("middle"), p.in("other")}, "more": append(slices.Clone(recorded), p.in("other")),
		"the wrong order": {p.in("base"), p.in("middle")},
	} {
		_, err := i.OpenChain(p.in("top"), replication.FormatQCOW2, backing)
		if err == nil || failure.Find(err).Reason != failure.ReasonImageChanged || failure.Find(err).Remedy == "" {
			t.Errorf("recorded %s: %v", name, err)
		}
	}
	command(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "other", "-F", "raw", p.in("middle"))
	_, err = i.OpenChain(p.in("top"), replication.FormatQCOW2, recorded)
	wantFailure(t, err, failure.ReasonImageChanged, p.in("other"))
}

func TestAChainIsNotEndless(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	scribbled(t, p.in("0"), 1<<20)
	for n := range 64 {
		f := "qcow2"
		if n == 0 {
			f = "raw"
		}
		overlay(t, p.in(fmt.Sprint(n+1)), 1<<20, "-u", "-b", fmt.Sprint(n), "-F", f)
	}
	_, err := i.Backing(p.in("64"), replication.FormatQCOW2)
	wantFailure(t, err, failure.ReasonImageUnreadable, "64")
	backing, err := i.Backing(p.in("63"), replication.FormatQCOW2)
	if err != nil || len(backing) != 63 {
		t.Errorf("%d files below, %v", len(backing), err)
	}
}

func TestAChainIsLocked(t *testing.T) {
	p := newPlace(t)
	i := newImages(t, []string{p.allowed}, nil)
	scribbled(t, p.in("base"), chainSize)
	overlay(t, p.in("top"), chainSize, "-b", "base", "-F", "raw")
	chain, err := i.OpenChain(p.in("top"), replication.FormatQCOW2, []string{p.in("base")})
	must(t, err)
	defer chain.Close()
	for name, f := range map[string]string{"base": "raw", "top": "qcow2"} {
		output, err := exec.Command("qemu-io", "-f", f, "-c", "write 0 512", p.in(name)).CombinedOutput()
		if err == nil || !strings.Contains(string(output), "lock") {
			t.Errorf("a writer was let into %s: %v: %s", name, err, output)
		}
	}
}

func TestAChainOverADevice(t *testing.T) {
	p := newPlace(t)
	scribbled(t, p.out("backing"), 20<<20)
	node := disktest.Loop(t, p.out("backing"))
	overlay(t, p.in("top"), 20<<20, "-b", node, "-F", "raw")
	content, err := os.ReadFile(p.out("backing"))
	must(t, err)
	content[1<<20] = 0
	copy(content[1<<20:], bytes.Repeat([]byte{9}, 1<<20))
	readsAs(t, newImages(t, []string{p.allowed}, []string{node}), p.in("top"), replication.FormatQCOW2, []string{node}, content)
	_, err = newImages(t, []string{p.allowed}, nil).Backing(p.in("top"), replication.FormatQCOW2)
	wantFailure(t, err, failure.ReasonPathOutside, node)
}

// scribbled is a raw file with something in it.
func scribbled(t *testing.T, path string, size int64) {
	t.Helper()
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(uint64(size), 3))
	for at := size / 3; at < size/2; at++ {
		content[at] = byte(random.Uint32())
	}
	must(t, os.WriteFile(path, content, 0o600))
}

// overlay makes a qcow2 image with something in it.
func overlay(t *testing.T, path string, size int64, arguments ...string) {
	t.Helper()
	all := append([]string{"create", "-q", "-f", "qcow2"}, arguments...)
	command(t, "qemu-img", append(all, path, fmt.Sprint(size))...)
	if slices.Contains(arguments, "-u") {
		return
	}
	if size > 2<<20 {
		command(t, "qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 1M", path)
	}
}

// unstated is an overlay whose header does not name its backing file's format, as QEMU before 6.1 wrote them.
func unstated(t *testing.T, path, backing string) {
	t.Helper()
	overlay(t, path, chainSize, "-b", backing, "-F", "raw")
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	head := make([]byte, 4096)
	_, err = file.ReadAt(head, 0)
	must(t, err)
	at := bytes.Index(head, []byte{0xE2, 0x79, 0x2A, 0xCA})
	if at < 0 {
		t.Fatal("the overlay has no backing format extension")
	}
	_, err = file.WriteAt([]byte{0x01, 0x02, 0x03, 0x04}, int64(at)) // an extension that nobody knows
	must(t, err)
}

func command(t *testing.T, name string, arguments ...string) {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	cmd.Dir = filepath.Dir(arguments[len(arguments)-1])
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(arguments, " "), err, output)
	}
}
