package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/durable/durabletest"
)

// The fuzz targets change one structure of a file that is whole otherwise, and mend its checksum, so that what lies
// behind the checksum is reached. Whatever it becomes: nothing outside the file is read, nothing panics, and memory
// stays bounded.

// sample is a file with every structure in it: layer, sealed, with a log that was not ended.
type sample struct {
	size  int64
	bytes []byte // the first 6 MiB
	layer bool
}

// newSample makes one by an interrupted session.
func newSample(tb testing.TB, layer, dirty bool) sample {
	tb.Helper()
	recorder := durabletest.New()
	file, err := recorder.Dir().Create("disk")
	must(tb, err)
	s := shape{vhdx.Options{SizeBytes: 600 * mib, BlockBytes: mib}, layer}
	d, err := s.create(file)
	must(tb, err)
	_, err = d.WriteAt(content(1), 8192)
	must(tb, err)
	if layer {
		must(tb, d.(*vhdx.Layer).Seal(disk.Parent{Name: "p.vhdx", Path: "/p.vhdx", Format: "vhdx", Identity: disk.Identity{1}}))
	}
	_, err = d.WriteAt(content(2), 513*mib)
	must(tb, err, d.Flush())
	if !dirty {
		must(tb, d.Close())
		file, err = recorder.Dir().Open("disk", durable.ReadOnly)
		must(tb, err)
	}
	size, err := file.Size()
	must(tb, err)
	p := make([]byte, 6*mib)
	_, err = file.ReadAt(p[:min(size, 6*mib)], 0)
	must(tb, err)
	return sample{size, p, layer}
}

// with is the file with a part replaced; mended is where a checksum over length bytes is set right, when length is
// not 0.
func (s sample) with(tb testing.TB, at int64, part []byte, length int64) durable.File {
	tb.Helper()
	p := bytes.Clone(s.bytes)
	n := copy(p[at:], part[:min(len(part), mib)])
	if length > 0 && n > 8 {
		mend(p[at:][:length])
	}
	return put(tb, p, s.size)
}

// mend sets the checksum at 4 of a header, a region table or a log entry right.
func mend(p []byte) {
	clear(p[4:8])
	binary.LittleEndian.PutUint32(p[4:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
}

func put(tb testing.TB, p []byte, size int64) durable.File {
	tb.Helper()
	file, err := durabletest.New().Dir().Create("disk")
	must(tb, err)
	for at := 0; at < len(p); at += grain {
		if page := p[at : at+grain]; !bytes.Equal(page, zeros[:]) {
			_, err := file.WriteAt(page, int64(at))
			must(tb, err)
		}
	}
	must(tb, file.Truncate(size))
	return file
}

// inside refuses reads that leave the file.
type inside struct {
	durable.File
	tb testing.TB
}

func (f inside) ReadAt(p []byte, off int64) (int, error) {
	size, err := f.Size()
	must(f.tb, err)
	if off < 0 || off+int64(len(p)) > size {
		f.tb.Errorf("reading %d bytes at %d of a file of %d", len(p), off, size)
	}
	return f.File.ReadAt(p, off)
}

// survive does everything with the file that can be done.
func survive(t *testing.T, s sample, file durable.File) {
	t.Helper()
	before := disktest.TotalAllocated()
	_, _ = vhdx.Describe(inside{file, t})
	findings := 0
	for _, err := range vhdx.Check(inside{file, t}) {
		if findings++; err != nil || findings > 100 {
			break
		}
	}
	o := shape{layer: s.layer}
	for _, mode := range []durable.Mode{durable.ReadOnly, durable.ReadWrite} {
		if d, err := o.open(inside{file, t}, mode); err == nil {
			readSome(t, d)
			writeSome(t, d, mode)
		}
	}
	if used := disktest.TotalAllocated() - before; used > 128<<20 {
		t.Errorf("%d bytes were allocated in all", used)
	}
}

func readSome(t *testing.T, d image) {
	t.Helper()
	next, looked := int64(0), 0
	var room [64 << 10]byte
	for e, err := range d.Extents(0, d.Size()) {
		if err != nil {
			return
		}
		if e.Offset != next || e.Length <= 0 || e.End() > d.Size() {
			t.Fatalf("extent %+v where %d follows, of %d", e, next, d.Size())
		}
		next = e.End()
		if looked++; looked > 200 {
			return
		}
		_, err := d.ReadAt(room[:min(e.Length, int64(len(room)))], e.Offset)
		if (err != nil) != (e.Kind == disk.Absent) || err != nil && !errors.Is(err, disk.ErrAbsent) {
			t.Errorf("reading %+v: %v", e, err)
		}
	}
}

// writeSome writes and reads again.
func writeSome(t *testing.T, d image, mode durable.Mode) {
	t.Helper()
	p := content(42)[:min(grain, d.Size())]
	if _, err := d.WriteAt(p, 0); err == nil {
		got := make([]byte, len(p))
		if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) || mode == durable.ReadOnly {
			t.Errorf("what was written reads as %x, %v", got[:8], err)
		}
		_ = d.Flush()
	}
}

func FuzzHeader(f *testing.F) {
	s := newSample(f, true, true)
	f.Add(s.bytes[64<<10 : 64<<10+80])
	f.Add(s.bytes[128<<10 : 128<<10+80])
	f.Fuzz(func(t *testing.T, part []byte) {
		file := s.with(t, 64<<10, part[:min(len(part), 4096)], 4096)
		survive(t, s, file)
	})
}

func FuzzRegionTable(f *testing.F) {
	s := newSample(f, true, false)
	f.Add(s.bytes[192<<10 : 192<<10+96])
	f.Fuzz(func(t *testing.T, part []byte) {
		survive(t, s, s.with(t, 192<<10, part[:min(len(part), 64<<10)], 64<<10))
	})
}

func FuzzMetadata(f *testing.F) {
	s := newSample(f, true, false)
	table, items := s.bytes[2*mib:2*mib+256], s.bytes[2*mib+64<<10:2*mib+64<<10+64]
	f.Add(table, items)
	f.Add(newSample(f, false, false).bytes[2*mib:2*mib+256], items)
	f.Fuzz(func(t *testing.T, table, items []byte) {
		p := s
		p.bytes = bytes.Clone(s.bytes)
		copy(p.bytes[2*mib+64<<10:], items[:min(len(items), 4096)])
		survive(t, p, p.with(t, 2*mib, table[:min(len(table), 64<<10)], 0))
		p.layer = false
		survive(t, p, p.with(t, 2*mib, table[:min(len(table), 64<<10)], 0))
	})
}

func FuzzParentLocator(f *testing.F) {
	s := newSample(f, true, false)
	at := int64(2*mib + 68<<10) // where Seal puts it
	f.Add(s.bytes[at : at+400])
	f.Fuzz(func(t *testing.T, part []byte) {
		survive(t, s, s.with(t, at, part[:min(len(part), 4096)], 0))
	})
}

// FuzzBAT changes the BAT of a base and of a layer, and the sector bitmap.
func FuzzBAT(f *testing.F) {
	base, layer := newSample(f, false, false), newSample(f, true, false)
	f.Add(base.bytes[3*mib:3*mib+64], []byte{0xff, 1})
	f.Add(layer.bytes[3*mib:3*mib+64], []byte{0, 0xf0, 1})
	f.Fuzz(func(t *testing.T, entries, bits []byte) {
		for _, s := range []sample{base, layer} {
			p := s
			p.bytes = bytes.Clone(s.bytes)
			copy(p.bytes[4*mib:], bits[:min(len(bits), 4096)])
			survive(t, p, p.with(t, 3*mib, entries[:min(len(entries), 8192)], 0))
		}
	})
}

// FuzzLog changes the newest entry of a log, which begins in its second sector or later.
func FuzzLog(f *testing.F) {
	s := newSample(f, false, true)
	entry := s.bytes[mib+4096:]
	length := int64(binary.LittleEndian.Uint32(entry[8:]))
	f.Add(entry[:160], uint16(length/4096))
	f.Add(entry[:64], uint16(1))
	f.Fuzz(func(t *testing.T, part []byte, sectors uint16) {
		n := min(max(int64(sectors), 1), 128) * 4096
		survive(t, s, s.with(t, mib+4096, part[:min(int64(len(part)), n)], n))
	})
}
