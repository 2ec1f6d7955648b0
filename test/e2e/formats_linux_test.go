package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	vmreplicav1 "vmreplica/proto/vmreplica/v1"
)

// made is how qemu-img makes an image of a format.
type made struct {
	name, format, driver, options string
}

var formats = []made{
	{"VHDX dynamic", "vhdx", "vhdx", "subformat=dynamic"},
	{"VHDX fixed", "vhdx", "vhdx", "subformat=fixed"},
	{"VHD dynamic", "vhd", "vpc", "subformat=dynamic,force_size=on"},
	{"VHD fixed", "vhd", "vpc", "subformat=fixed,force_size=on"},
	{"qcow2", "qcow2", "qcow2", "compat=1.1"},
	{"qcow2 of version 2", "qcow2", "qcow2", "compat=0.10"},
	{"qcow2 with extended L2 entries", "qcow2", "qcow2", "extended_l2=on,cluster_size=128k"},
}

// convert makes path of the raw image from.
func (m made) convert(t *testing.T, from, path string) {
	t.Helper()
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", m.driver, "-o", m.options, from, path)
}

// plain is the image's content, as QEMU reads it.
func (m made) plain(t *testing.T, path string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "plain")
	tool(t, "qemu-img", "convert", "-f", m.driver, "-O", "raw", path, raw)
	return raw
}

// TestImagesOfEveryFormatOntoRaw replicates what qemu-img made, and what qemu-io made of it since.
func TestImagesOfEveryFormatOntoRaw(t *testing.T) {
	t.Parallel()
	for i, m := range formats {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			source, path := filepath.Join(p.dir, "source"), filepath.Join(p.images, "root."+m.format)
			fill(t, source, 40*mib+512, uint64(50+i))
			m.convert(t, source, path)
			p.replica.do("authorize", primaryName)
			p.primary.try("enable", vm, "--disk", path+",id=root.img", "--replica", p.reached).
				wants(t, 2, "--format "+m.format)
			p.primary.try("enable", vm, "--disk", path+",id=root.img", "--format", m.format, "--replica-format", "raw",
				"--replica", p.reached).wants(t, 0, "Next: vmreplica")
			p.primary.do("start-initial", vm, "--wait")
			equal(t, source, p.base())
			tool(t, "qemu-io", "-f", m.driver, "-c", "write -P 7 3M 5M", "-c", "write -P 8 39M 64k", "-c", "write -z 20M 2M", path)
			resync := decode(t, p.primary.do("resync", vm, "--wait", "-o", "json"), &vmreplicav1.Resync{})
			if differing := resync.GetDisks()[0].GetBlocksDiffering(); differing == 0 || differing > 8*mib/block {
				t.Errorf("%d blocks differ", differing)
			}
			equal(t, m.plain(t, path), p.base())
			p.primary.try("verify", vm, "--wait").wants(t, 0, "equal")
			p.primary.try("describe", vm).wants(t, 0, m.format+", 40.0 MiB", "On the replica: raw")
		})
	}
}

// TestABackingChain replicates an overlay with what it stands on, and notices when that changes.
func TestABackingChain(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	golden, middle, top := filepath.Join(p.images, "golden.img"), filepath.Join(p.images, "middle.qcow2"), filepath.Join(p.images, "top.qcow2")
	fill(t, golden, 40*mib, 70)
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "golden.img", "-F", "raw", middle)
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 4M", middle)
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top, fmt.Sprint(48*mib))
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P 6 3M 4M", "-c", "write -P 6 45M 1M", top)
	p.replica.do("authorize", primaryName)
	p.primary.do("enable", vm, "--disk", top+",id=root.img", "--format", "qcow2", "--replica-format", "raw", "--replica", p.reached,
		"--auto-resync", "off")
	p.primary.try("describe", vm).wants(t, 0, "Stands on: "+middle, "Stands on: "+golden)
	p.primary.do("start-initial", vm, "--wait")
	chain := made{driver: "qcow2"}
	equal(t, chain.plain(t, top), p.base())

	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 9 30M 1M", golden)
	eventually(t, "the change of the golden image is noticed", func() bool {
		return strings.Contains(p.primary.do("get", vm), "WaitingForStartResynchronize")
	})
	p.primary.try("describe", vm).wants(t, 0, "stands on")
	p.primary.do("resync", vm, "--wait")
	equal(t, chain.plain(t, top), p.base())

	tool(t, "qemu-img", "rebase", "-u", "-f", "qcow2", "-b", golden, "-F", "raw", top)
	p.primary.try("resync", vm, "--wait").wants(t, 7, "IMAGE_CHANGED", golden)
}

// TestFormatsThatAreNotSo states what an image is not.
func TestFormatsThatAreNotSo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	fill(t, p.image(), mib, 71)
	p.replica.do("authorize", primaryName)
	for _, m := range []made{{format: "vhdx"}, {format: "vhd"}, {format: "qcow2"}} {
		p.primary.try("enable", vm, "--disk", p.image(), "--format", m.format, "--replica", p.reached).
			wants(t, 4, "IMAGE_UNREADABLE", "signature", "never guessed", p.image())
	}
	outside := filepath.Join(p.dir, "outside.img")
	fill(t, outside, mib, 72)
	top := filepath.Join(p.images, "top.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", outside, "-F", "raw", top)
	p.primary.try("enable", vm, "--disk", top, "--format", "qcow2", "--replica", p.reached).wants(t, 6, "PATH_OUTSIDE", outside)
	large := filepath.Join(p.images, "large.img")
	tool(t, "truncate", "-s", "2041G", large)
	p.primary.try("enable", vm, "--disk", large, "--replica-format", "vhd", "--replica", p.reached).
		wants(t, 4, "LIMIT_EXCEEDED", "2040 GiB", "vhdx")
	p.primary.try("get", vm).wants(t, 3)
}
