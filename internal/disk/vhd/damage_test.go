package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
)

// Where Create puts things, by the format's specification and this package's layout.
const (
	headerAt  = 512
	dynamicAt = 4096
	sealedAt  = 28672
)

// damage is one change to a sealed differencing disk or a dynamic one of two blocks, both in a file of bytes.
type damage struct {
	differencing bool
	do           func(file []byte) []byte
	// finding is a part of what Check says; opens says whether reading still gives what was written.
	finding string
	opens   bool
}

var damages = map[string]damage{
	"no footer at the end": {do: func(f []byte) []byte { return f[:len(f)-512] }, finding: "footer at the file's end", opens: true},
	"a torn end":           {do: func(f []byte) []byte { return f[:len(f)-100] }, finding: "footer at the file's end", opens: true},
	"no copy":              {do: zeroed(0, 512), finding: "copy of the footer", opens: true},
	"neither footer":       {do: func(f []byte) []byte { return zeroed(0, 512)(f[:len(f)-512]) }, finding: "no VHD footer"},
	"another identity at the end": {do: func(f []byte) []byte {
		footer := f[len(f)-512:]
		footer[70] ^= 1
		copy(footer, vhd.Summed(footer))
		return f
	}, finding: "differ", opens: true},
	"another size at the end": {do: func(f []byte) []byte {
		footer := f[len(f)-512:]
		footer[54] ^= 2
		copy(footer, vhd.Summed(footer))
		return f
	}, finding: "different disks"},
	"a flipped bit in the header": {do: flipped(headerAt + 700), finding: "header's checksum"},
	"a torn header that was sealed": {differencing: true, do: func(f []byte) []byte { return flipped(headerAt + 50)(f) },
		finding: "second place", opens: true},
	"a block in the header":     {do: entry(0, 2), finding: "lies in the header"},
	"a block in the BAT":        {do: entry(0, dynamicAt/512), finding: "lies in the BAT"},
	"a block beyond the end":    {do: entry(0, 1<<31), finding: "beyond the file's end"},
	"one place for two blocks":  {do: func(f []byte) []byte { copy(f[dynamicAt:], f[dynamicAt+4:dynamicAt+8]); return f }, finding: "overlaps"},
	"blocks that overlap":       {do: nudged, finding: "overlaps"},
	"zero bits":                 {do: func(f []byte) []byte { f[blockAt(f, 1)] = 0x7f; return f }, finding: "zero bits"},
	"a locator outside":         {differencing: true, do: locatorOutside, finding: "parent locator 0", opens: true},
	"blocks of a strange size":  {do: header(32, 3<<20), finding: "blocks of 3145728 bytes"},
	"a BAT too short":           {do: header(28, 1), finding: "a BAT of 1 entries"},
	"a BAT outside the file":    {do: header(20, 1<<30), finding: "outside the file"},
	"a version from the future": {do: header(24, 0x00020000), finding: "version 2.0"},
}

func zeroed(at, n int) func([]byte) []byte {
	return func(f []byte) []byte { clear(f[at : at+n]); return f }
}

func flipped(at int) func([]byte) []byte {
	return func(f []byte) []byte { f[at] ^= 1; return f }
}

func entry(block, sector int) func([]byte) []byte {
	return func(f []byte) []byte {
		binary.BigEndian.PutUint32(f[dynamicAt+4*block:], uint32(sector))
		return f
	}
}

// header sets four bytes of the header and its checksum.
func header(at int, value uint32) func([]byte) []byte {
	return func(f []byte) []byte {
		h := f[headerAt : headerAt+1024]
		binary.BigEndian.PutUint32(h[at:], value)
		copy(h, vhd.Summed(h))
		return f
	}
}

func nudged(f []byte) []byte {
	binary.BigEndian.PutUint32(f[dynamicAt:], uint32(blockAt(f, 1)/512+100))
	return f
}

func locatorOutside(f []byte) []byte {
	h := f[headerAt : headerAt+1024]
	binary.BigEndian.PutUint64(h[576+16:], 1<<40)
	copy(h, vhd.Summed(h))
	return f
}

// blockAt is where a block of the dynamic disk begins.
func blockAt(f []byte, block int) int {
	return int(binary.BigEndian.Uint32(f[dynamicAt+4*block:])) * 512
}

// TestDamage opens and checks what is wrong in one way each; the sound file is sound.
func TestDamage(t *testing.T) {
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			path := twoBlocks(t, d.differencing)
			checkFindsNothing(t, path)
			whole, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, d.do(whole), 0o600))
			if found := findings(t, path); !strings.Contains(found, d.finding) {
				t.Errorf("found %q, want %q", found, d.finding)
			}
			if err := readTwoBlocks(t, path, d.differencing, durable.ReadOnly); (err == nil) != d.opens {
				t.Errorf("reading it: %v", err)
			}
			if !d.opens || strings.HasPrefix(d.finding, "parent locator") {
				return
			}
			must(t, readTwoBlocks(t, path, d.differencing, durable.ReadWrite))
			checkFindsNothing(t, path)
		})
	}
}

// twoBlocks makes a disk of two blocks, the second written first.
func twoBlocks(t *testing.T, differencing bool) string {
	t.Helper()
	path := filepath.Join(memoryDir(t), "disk")
	i := makeImage(t, newFile(t, path), differencing)
	for _, block := range []int64{1, 0} {
		_, err := i.WriteAt(bytes.Repeat(content(uint64(block)+5), 128), block*(512<<10))
		must(t, err)
	}
	if layer, ok := i.(*vhd.Layer); ok {
		must(t, layer.Seal(disk.Parent{Name: "base.vhd", Path: "/base.vhd", Format: "vhd"}))
	}
	must(t, i.Close())
	return path
}

func makeImage(t *testing.T, file durable.File, differencing bool) image {
	t.Helper()
	options := vhd.Options{SizeBytes: 1 << 20, BlockBytes: 512 << 10}
	if differencing {
		layer, err := vhd.CreateDifferencing(file, options)
		must(t, err)
		return layer
	}
	base, err := vhd.Create(file, options)
	must(t, err)
	return base
}

func openImage(file durable.File, differencing bool, mode durable.Mode) (image, error) {
	if differencing {
		return opened(vhd.OpenDifferencing(file, mode))
	}
	return opened(vhd.Open(file, mode))
}

func readTwoBlocks(t *testing.T, path string, differencing bool, mode durable.Mode) error {
	t.Helper()
	i, err := openImage(hostFile(t, path, mode), differencing, mode)
	if err != nil {
		return err
	}
	defer i.Close()
	got := make([]byte, 1<<20)
	if _, err := i.ReadAt(got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, append(bytes.Repeat(content(5), 128), bytes.Repeat(content(6), 128)...)) {
		return errors.New("it reads otherwise")
	}
	return nil
}

func findings(t *testing.T, path string) string {
	t.Helper()
	file := hostFile(t, path, durable.ReadOnly)
	defer file.Close()
	var text strings.Builder
	for finding, err := range vhd.Check(file) {
		must(t, err)
		text.WriteString(finding.Message + "\n")
	}
	return text.String()
}

// TestHiddenSectorsStayHidden reads a dynamic disk's sectors with a zero bit as zeros, and keeps what lies there from
// showing when the block is written.
func TestHiddenSectorsStayHidden(t *testing.T) {
	path := twoBlocks(t, false)
	file, err := os.ReadFile(path)
	must(t, err)
	clear(file[blockAt(file, 0) : blockAt(file, 0)+4]) // 32 sectors
	must(t, os.WriteFile(path, file, 0o600))
	want := append(bytes.Repeat(content(5), 128), bytes.Repeat(content(6), 128)...)
	clear(want[:32*512])
	readsAs(t, path, want)
	base, err := vhd.Open(hostFile(t, path, durable.ReadWrite), durable.ReadWrite)
	must(t, err)
	_, err = base.WriteAt([]byte("x"), 700)
	must(t, err)
	want[700] = 'x'
	must(t, base.Close())
	readsAs(t, path, want)
	checkFindsNothing(t, path)
	raw := path + ".raw"
	must(t, os.WriteFile(raw, want, 0o600))
	compareWithQEMU(t, path, raw)
}
