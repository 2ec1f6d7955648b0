package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kinds are what stands at either end.
var kinds = []made{
	{"raw", "raw", "raw", ""},
	{"VHD dynamic", "vhd", "vpc", "subformat=dynamic,force_size=on"},
	{"VHDX dynamic", "vhdx", "vhdx", "subformat=dynamic"},
	{"VHDX fixed", "vhdx", "vhdx", "subformat=fixed"},
	{"qcow2", "qcow2", "qcow2", ""},
}

// pairingSize is in whole 4 KiB: 7-Zip reads no other VHDX file.
const pairingSize = 16*mib + 4096

// id is the name of the disk that stands on this kind at the replica.
func (m made) id() string { return strings.ReplaceAll(m.name, " ", "-") }

// make makes path of the raw image from.
func (m made) make(t *testing.T, from, path string) {
	t.Helper()
	if m.options == "" {
		tool(t, "qemu-img", "convert", "-f", "raw", "-O", m.driver, from, path)
		return
	}
	m.convert(t, from, path)
}

// holds compares an image, as QEMU and, for VHD and VHDX, 7-Zip read it, with a raw one.
func (m made) holds(t *testing.T, path, want string) {
	t.Helper()
	equal(t, want, m.plain(t, path))
	if m.format != "vhd" && m.format != "vhdx" {
		return
	}
	read := exec.Command("7zz", "e", "-so", "-t"+m.format, path)
	unpacked := filepath.Join(t.TempDir(), "unpacked")
	out, err := os.Create(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	read.Stdout = out
	if err := read.Run(); err != nil {
		t.Fatalf("%s: %v", read, err)
	}
	equal(t, want, unpacked)
}

// TestEveryPairingOfFormats enables a VM with one disk on each kind at the replica, adopted as qemu-img made it of older
// content, and kills both agents in the middle of a resync.
func TestEveryPairingOfFormats(t *testing.T) {
	t.Parallel()
	for i, m := range kinds {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			older := filepath.Join(p.dir, "older")
			fill(t, older, pairingSize, uint64(80+i))
			p.place(m, older, true)
			p.replica.do("authorize", primaryName)
			p.primary.do(p.enableAll(m, kinds, "--use-existing")...)
			p.primary.do("start-initial", vm, "--wait")
			p.compare(m, kinds)
			p.change(m)
			p.killBothAmid(t, "resync")
			p.compare(m, kinds)
			p.primary.try("verify", vm, "--wait").wants(t, 0, "equal")
			for _, onto := range kinds {
				p.replica.try("describe", vm).wants(t, 0, onto.id(), onto.format)
			}
		})
	}
}

// TestFirstCopiesOfEveryFormat lets the replica make the bases, and kills both agents in the middle.
func TestFirstCopiesOfEveryFormat(t *testing.T) {
	t.Parallel()
	m := kinds[2]
	made := []made{kinds[0], kinds[1], kinds[2], kinds[4]}
	p := newPair(t)
	source := filepath.Join(p.dir, "source")
	fill(t, source, pairingSize, 90)
	p.place(m, source, false)
	p.replica.do("authorize", primaryName)
	p.primary.do(p.enableAll(m, made)...)
	p.killBothAmid(t, "start-initial")
	p.compare(m, made)
	p.change(m)
	p.primary.do("resync", vm, "--wait")
	p.compare(m, made)
}

// of is the image on the primary of the disk that stands on that kind.
func (p *pair) of(onto made) string { return filepath.Join(p.images, onto.id()) }

// on is where the replica keeps it.
func (p *pair) on(onto made) string { return filepath.Join(p.storage, primaryName, vm, onto.id()) }

// place makes the images of kind m and, when they are to be adopted, the replica's bases of every kind.
func (p *pair) place(m made, content string, bases bool) {
	p.t.Helper()
	for _, onto := range kinds {
		m.make(p.t, content, p.of(onto))
		if bases {
			mustMake(p.t, filepath.Dir(p.on(onto)))
			onto.make(p.t, content, p.on(onto))
		}
	}
}

// enableAll are the arguments of enable for one disk on each kind.
func (p *pair) enableAll(m made, onto []made, more ...string) []string {
	arguments := []string{"enable", vm, "--replica", p.reached, "--auto-resync", "off"}
	for _, at := range onto {
		arguments = append(arguments, "--disk",
			fmt.Sprintf("%s,id=%s,format=%s,replica-format=%s", p.of(at), at.id(), m.format, at.format))
	}
	return append(arguments, more...)
}

// change lets qemu-io write to every image: data, zeros, and what was never written.
func (p *pair) change(m made) {
	p.t.Helper()
	content := filepath.Join(p.dir, "content")
	scrambled(p.t, content, 5*mib, 77)
	for _, onto := range kinds {
		tool(p.t, "qemu-io", "-f", m.driver, "-c", fmt.Sprintf("write -s %s 3M 5M", content), "-c", "write -P 8 16M 4k",
			"-c", "write -z 10M 1M", "-c", "write -P 9 12345k 64k", p.of(onto))
	}
}

// killBothAmid starts a resync, or the first copy, slowly and kills both agents when the first bytes were received; it
// must end by itself after that.
func (p *pair) killBothAmid(t *testing.T, what string) {
	t.Helper()
	p.limit("8MiB/s")
	p.primary.do(what, vm)
	s := p.primary.services()
	eventually(t, "something was sent", func() bool {
		var sent int64
		for _, d := range s.newest(t.Context()).GetDisks() {
			sent += d.GetWireBytesSent()
		}
		return sent > mib
	})
	p.replica.kill()
	p.primary.kill()
	p.replica.start()
	p.primary.start()
	p.limit("none")
	p.ends(p.primary.services())
}

// compare reads each base with other programs.
func (p *pair) compare(m made, onto []made) {
	p.t.Helper()
	for _, at := range onto {
		want := m.plain(p.t, p.of(at))
		at.holds(p.t, p.on(at), want)
	}
}
