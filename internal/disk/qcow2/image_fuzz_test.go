package qcow2_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// The pieces of a small image that the fuzzer replaces, and where they lie: in clusters of 4 KiB the header, the
// refcount table, the first refcount block, the L1 table, the first L2 table, and what is compressed.
var fuzzedAt = [...]int64{0, 4096, 8192, 12288, 16384, 20480}

// fuzzedImage puts the pieces in their places, in a file of size bytes, all else a hole.
func fuzzedImage(t *testing.T, size int64, pieces ...[]byte) *memory {
	t.Helper()
	file := newMemory()
	for n, piece := range pieces {
		file.put(fuzzedAt[n], piece[:min(len(piece), 4096)])
	}
	must(t, file.Truncate(min(max(size, 0), 1<<34)))
	return file
}

// seedImages are the pieces of images that QEMU made.
func seedImages(f *testing.F) {
	for _, name := range []string{"version 2, deflate", "zstd of 4 KiB", "extended L2 of 16 KiB", "clusters of 512 bytes", "clusters of 4 KiB"} {
		directory := f.TempDir()
		source, path := filepath.Join(directory, "source"), filepath.Join(directory, "image")
		must(f, os.WriteFile(source, append(make([]byte, 8192), stamped(7)...), 0o600))
		options := foreignImages[name]
		args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", options.create}
		if options.compress != "" {
			args = []string{"convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options.compress}
		}
		if name == "version 2, deflate" {
			args = []string{"convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compat=0.10,cluster_size=4k"}
		}
		command(f, "qemu-img", append(args, source, path)...)
		content, err := os.ReadFile(path)
		must(f, err)
		content = append(content, make([]byte, 7*4096)...)
		var pieces [len(fuzzedAt)][]byte
		for n, at := range fuzzedAt {
			pieces[n] = content[at : at+4096]
		}
		f.Add(int64(len(content)), pieces[0], pieces[1], pieces[2], pieces[3], pieces[4], pieces[5])
	}
}

// FuzzImage reads, checks and describes whatever the fuzzer makes of an image, then writes into it: no panic, no read
// outside the file, no more than 64 MiB of memory to open and read, and what was written is read again.
func FuzzImage(f *testing.F) {
	seedImages(f)
	f.Fuzz(func(t *testing.T, size int64, header, counts, block, l1, l2, packed []byte) {
		file := fuzzedImage(t, size, header, counts, block, l1, l2, packed)
		before := disktest.TotalAllocated()
		readFuzzed(t, inside{file, t})
		if used := disktest.TotalAllocated() - before; used > 64<<20 {
			t.Errorf("%d bytes were allocated to read", used)
		}
		writeFuzzed(t, file)
	})
}

// FuzzImageCheck checks and describes what the fuzzer makes.
func FuzzImageCheck(f *testing.F) {
	seedImages(f)
	f.Fuzz(func(t *testing.T, size int64, header, counts, block, l1, l2, packed []byte) {
		file := inside{fuzzedImage(t, min(size, 1<<28), header, counts, block, l1, l2, packed), t}
		before := disktest.TotalAllocated()
		found := 0
		for finding, err := range qcow2.Check(file) {
			if found++; err != nil || found > 100 {
				break
			}
			if finding.Severity != disk.Leaked && finding.Severity != disk.Damaged || finding.Message == "" {
				t.Errorf("%+v", finding)
			}
		}
		if info, err := qcow2.Describe(file); err == nil && (info.SizeBytes < 512 || info.UnitBytes < 512) {
			t.Errorf("%+v", info)
		}
		if used := disktest.TotalAllocated() - before; used > 64<<20 {
			t.Errorf("%d bytes were allocated to check", used)
		}
	})
}

// FuzzCounts is about refcount tables and blocks alone: what an image of every width of refcount allocates from them.
func FuzzCounts(f *testing.F) {
	f.Add(uint8(4), binary.BigEndian.AppendUint64(nil, 8192), []byte{0, 1, 0, 1, 0, 1, 0, 1})
	f.Add(uint8(0), binary.BigEndian.AppendUint64(nil, 8192), []byte{0x1f})
	f.Add(uint8(6), binary.BigEndian.AppendUint64(nil, 4096), []byte{1})
	f.Fuzz(func(t *testing.T, order uint8, counts, block []byte) {
		file := newMemory()
		i, err := qcow2.CreateImage(file, qcow2.ImageOptions{SizeBytes: 1 << 20, ClusterBytes: 4096})
		must(t, err)
		must(t, i.Flush())
		file.put(96, binary.BigEndian.AppendUint32(nil, uint32(order%7)))
		file.put(4096, counts[:min(len(counts), 4096)])
		file.put(8192, block[:min(len(block), 4096)])
		writeFuzzed(t, file)
	})
}

func readFuzzed(t *testing.T, file inside) {
	i, err := qcow2.OpenImage(file, durable.ReadOnly)
	if err != nil {
		return
	}
	next, looked := int64(0), 0
	var room [64 << 10]byte
	for e, err := range i.Extents(0, i.Size()) {
		if err != nil {
			return
		}
		if e.Offset != next || e.Length <= 0 || e.End() > i.Size() {
			t.Fatalf("extent %+v where %d follows, of %d", e, next, i.Size())
		}
		next = e.End()
		if looked++; looked > 64 {
			return
		}
		_, _ = i.ReadAt(room[:min(e.Length, int64(len(room)))], e.Offset)
	}
	if next != i.Size() {
		t.Errorf("the extents end at %d of %d", next, i.Size())
	}
}

// writeFuzzed changes the beginning and the end. Content is asked of an image that Check finds whole: where two entries
// share a cluster, freeing one takes the other's.
func writeFuzzed(t *testing.T, file *memory) {
	whole := true
	for finding, err := range qcow2.Check(inside{file, t}) {
		if whole = err == nil && finding.Severity == disk.Leaked; !whole {
			break
		}
	}
	i, err := qcow2.OpenImage(inside{file, t}, durable.ReadWrite)
	if err != nil {
		return
	}
	_, _ = i.WriteAt(stamped(1), 0)
	_ = i.Unmap(0, min(i.Size(), 1<<20))
	_ = i.Zero(max(0, i.Size()-70000), min(i.Size(), 70000))
	_, err = i.WriteAt(stamped(2), i.Size()-sector)
	if err == nil {
		err = i.Flush()
	}
	if err != nil || !whole {
		return
	}
	again, err := qcow2.OpenImage(inside{file, t}, durable.ReadOnly)
	must(t, err)
	got := make([]byte, sector)
	if _, err := again.ReadAt(got, i.Size()-sector); err != nil || !carries(got, 2) {
		t.Errorf("the last sector was written and reads %x, %v", got[:8], err)
	}
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	f := &foreign{}
	if out, err := f.try(name, args...); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}
