package vhd_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhd"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// The fuzz targets put a file together of what the fuzzer gives for one structure and of sound ones for the rest,
// with the checksums made right: a fuzzer would not guess them. Whatever it is, nothing outside the file is read and
// memory stays bounded.

// parts are the structures of a sealed differencing disk of two blocks; a hole lies between them.
type parts struct {
	footer, header, locators, bat, blocks []byte
	size                                  int64
}

func soundParts(f testing.TB) parts {
	path := filepath.Join(memoryDir(f), "disk")
	layer, err := vhd.CreateDifferencing(newFile(f, path), vhd.Options{SizeBytes: 1 << 20, BlockBytes: 512 << 10})
	must(f, err)
	_, err = layer.WriteAt(content(5), 512<<10)
	must(f, err)
	must(f, layer.Seal(disk.Parent{Name: "base.vhd", Path: "/base.vhd", Format: "vhd"}))
	must(f, layer.Close())
	file, err := os.ReadFile(path)
	must(f, err)
	return parts{file[:512], file[headerAt : headerAt+1024], file[4096:12288], file[sealedAt : sealedAt+512],
		file[sealedAt+512 : sealedAt+8192], int64(len(file))}
}

// file is what the parts make.
func (p parts) file(t *testing.T) durable.File {
	t.Helper()
	file, err := durabletest.New().Dir().Create("disk")
	must(t, err)
	size := min(max(p.size, 0), 1<<42)
	must(t, file.Truncate(size))
	for at, part := range map[int64][]byte{0: vhd.Summed(p.footer), headerAt: vhd.Summed(p.header), 4096: p.locators,
		sealedAt: p.bat, sealedAt + 512: p.blocks, max(size-512, 0): vhd.Summed(p.footer)} {
		_, err := file.WriteAt(part[:min(int64(len(part)), max(size-at, 0))], at)
		must(t, err)
	}
	return file
}

func FuzzFooter(f *testing.F) {
	sound := soundParts(f)
	f.Add(sound.footer, sound.size)
	f.Add(sound.footer, int64(512))
	fixed := append([]byte(nil), sound.footer...)
	fixed[63] = 2
	f.Add(fixed, int64(1<<20+512))
	f.Fuzz(func(t *testing.T, footer []byte, size int64) {
		sound.footer, sound.size = footer, size
		fuzz(t, sound)
	})
}

func FuzzHeader(f *testing.F) {
	sound := soundParts(f)
	f.Add(sound.header, sound.size)
	f.Add(sound.header, int64(sealedAt))
	f.Fuzz(func(t *testing.T, header []byte, size int64) {
		sound.header, sound.size = header, size
		fuzz(t, sound)
	})
}

func FuzzLocators(f *testing.F) {
	sound := soundParts(f)
	f.Add(sound.header[576:768], sound.locators)
	f.Fuzz(func(t *testing.T, table, locators []byte) {
		header := append([]byte(nil), sound.header...)
		copy(header[576:768], table)
		sound.header, sound.locators = header, locators
		fuzz(t, sound)
	})
}

func FuzzBAT(f *testing.F) {
	sound := soundParts(f)
	f.Add(sound.bat, sound.blocks[:4096], byte(4))
	f.Add(sound.bat, sound.blocks[:4096], byte(3))
	f.Fuzz(func(t *testing.T, bat, blocks []byte, kind byte) {
		footer := append([]byte(nil), sound.footer...)
		footer[63] = kind
		sound.footer, sound.bat, sound.blocks = footer, bat, blocks
		fuzz(t, sound)
	})
}

// inside refuses reads that leave the file.
type inside struct {
	durable.File
	t *testing.T
}

func (f inside) ReadAt(p []byte, off int64) (int, error) {
	size, err := f.Size()
	must(f.t, err)
	if off < 0 || off+int64(len(p)) > size {
		f.t.Errorf("reading %d bytes at %d of a file of %d", len(p), off, size)
	}
	return f.File.ReadAt(p, off)
}

// fuzz describes, checks, reads and writes the file.
func fuzz(t *testing.T, p parts) {
	file := inside{p.file(t), t}
	before := disktest.TotalAllocated()
	info, err := vhd.Describe(file)
	seen := 0
	for range vhd.Check(file) {
		if seen++; seen > 64 {
			break
		}
	}
	if used := disktest.TotalAllocated() - before; used > 64<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
	if err != nil {
		return
	}
	before = disktest.TotalAllocated()
	i, err := openImage(file, info.Kind == "differencing", durable.ReadWrite)
	if err != nil {
		return
	}
	fuzzRead(t, i)
	fuzzWrite(t, i)
	if used := disktest.TotalAllocated() - before; used > 64<<20 {
		t.Errorf("%d bytes were allocated by an image", used)
	}
}

func fuzzRead(t *testing.T, i image) {
	next, looked := int64(0), 0
	var room [64 << 10]byte
	for e, err := range i.Extents(0, i.Size()) {
		if looked++; err != nil || looked > 64 {
			return
		}
		if e.Offset != next || e.Length <= 0 || e.End() > i.Size() {
			t.Fatalf("extent %+v where %d follows, of %d", e, next, i.Size())
		}
		next = e.End()
		_, err := i.ReadAt(room[:min(e.Length, int64(len(room)))], e.Offset)
		if (err != nil) != (e.Kind == disk.Absent) || err != nil && !errors.Is(err, disk.ErrAbsent) {
			t.Errorf("reading %+v: %v", e, err)
		}
	}
	if next != i.Size() {
		t.Errorf("the extents end at %d of %d", next, i.Size())
	}
}

// fuzzWrite writes the last grain and reads it again.
func fuzzWrite(t *testing.T, i image) {
	off := (i.Size() - 1) / grain * grain
	p := content(77)[:i.Size()-off]
	if _, err := i.WriteAt(p, off); err != nil {
		return
	}
	got := make([]byte, len(p))
	if _, err := i.ReadAt(got, off); err != nil || string(got) != string(p) {
		t.Errorf("what was written at %d reads %x, %v", off, got[:8], err)
	}
	must(t, i.Flush())
}
