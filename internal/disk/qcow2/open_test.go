package qcow2_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

const cluster = 128 << 10

// Where Create puts things in an overlay of less than 16 TiB, and where the first write to it goes.
const (
	refcountTableAt = cluster
	l1At            = 3 * cluster
	l2At            = 4 * cluster
	dataAt          = 5 * cluster
)

// patch is a change of the file.
type patch struct {
	at    int64
	value any // uint16, uint32 or uint64
}

// written is an overlay of 3 GiB with data in its first cluster, closed.
func written(t testing.TB) *memory {
	t.Helper()
	file := newMemory()
	o, err := qcow2.Create(file, 3<<30)
	must(t, err)
	_, err = o.WriteAt(content(1), 0)
	must(t, err)
	must(t, o.Close())
	return file
}

func patched(t testing.TB, patches ...patch) *memory {
	t.Helper()
	file := written(t)
	for _, p := range patches {
		raw, err := binary.Append(nil, binary.BigEndian, p.value)
		must(t, err)
		_, err = file.WriteAt(raw, p.at)
		must(t, err)
	}
	return file
}

func TestAHeaderThatIsNotOursIsRefused(t *testing.T) {
	cases := []struct {
		name    string
		patch   patch
		class   failure.Class
		message string
	}{
		{"another magic", patch{0, uint32(0x514649fc)}, failure.Unsupported, "no qcow2 header"},
		{"version 2", patch{4, uint32(2)}, failure.Unsupported, "version is 2"},
		{"clusters of 64 KiB", patch{20, uint32(16)}, failure.Unsupported, "cluster bits are 16"},
		{"encrypted", patch{32, uint32(2)}, failure.Unsupported, "encrypted"},
		{"snapshots", patch{60, uint32(1)}, failure.Unsupported, "snapshots"},
		{"dirty", patch{72, uint64(16 + 1)}, failure.Unsupported, "dirty"},
		{"corrupt", patch{72, uint64(16 + 2)}, failure.Corrupt, "marked corrupt"},
		{"external data", patch{72, uint64(16 + 4)}, failure.Unsupported, "features 0x4"},
		{"no extended L2", patch{72, uint64(0)}, failure.Unsupported, "extended L2"},
		{"unknown incompatible", patch{72, uint64(16 + 1<<40)}, failure.Unsupported, "0x10000000000"},
		{"autoclear", patch{88, uint64(1)}, failure.Unsupported, "autoclear"},
		{"refcounts of 8 bit", patch{96, uint32(3)}, failure.Unsupported, "refcount order"},
		{"no size", patch{24, uint64(0)}, failure.Corrupt, "0 bytes"},
		{"an odd size", patch{24, uint64(513)}, failure.Corrupt, "513 bytes"},
		{"a huge size", patch{24, uint64(65 << 40)}, failure.Corrupt, "64 TiB"},
		{"a negative size", patch{24, uint64(1) << 63}, failure.Corrupt, "64 TiB"},
		{"a short L1 table", patch{36, uint32(2)}, failure.Corrupt, "L1 table of 2 entries"},
		{"a long L1 table", patch{36, uint32(1 << 31)}, failure.Corrupt, "L1 table of 2147483648"},
		{"an L1 table behind the end", patch{40, uint64(1 << 40)}, failure.Corrupt, "outside the file"},
		{"an L1 table off its cluster", patch{40, uint64(l1At + 512)}, failure.Corrupt, "outside the file"},
		{"an L1 table in the header", patch{40, uint64(0)}, failure.Corrupt, "outside the file"},
		{"a negative L1 table", patch{40, uint64(1)<<63 + cluster}, failure.Corrupt, "outside the file"},
		{"an L1 table over the refcount table", patch{40, uint64(refcountTableAt)}, failure.Corrupt, "overlap"},
		{"a refcount table behind the end", patch{48, uint64(1 << 50)}, failure.Corrupt, "outside the file"},
		{"no refcount table", patch{56, uint32(0)}, failure.Corrupt, "refcount table of 0 bytes"},
		{"a huge refcount table", patch{56, ^uint32(0)}, failure.Corrupt, "refcount table of"},
		{"a parent's name behind the header", patch{8, uint64(cluster + 1)}, failure.Corrupt, "parent's name"},
		{"a parent's name in the header", patch{8, uint64(64)}, failure.Corrupt, "header of 112"},
		{"a header without end", patch{100, uint32(1 << 30)}, failure.Corrupt, "header of"},
		{"a short header", patch{100, uint32(96)}, failure.Corrupt, "header of 96"},
		{"an extension without end", patch{112, uint64(0xe2792aca_7fffffff)}, failure.Corrupt, "extension"},
		{"a refcount block off its cluster", patch{refcountTableAt, uint64(2*cluster + 512)}, failure.Corrupt, "entry 0"},
		{"a refcount block behind the end", patch{refcountTableAt + 8, uint64(1 << 40)}, failure.Corrupt, "entry 1"},
		{"a refcount block twice", patch{refcountTableAt + 8, uint64(2 * cluster)}, failure.Corrupt, "entry 1"},
		{"a refcount block in the L1 table", patch{refcountTableAt + 8, uint64(l1At)}, failure.Corrupt, "entry 1"},
		{"an L2 table that is shared", patch{l1At, uint64(l2At)}, failure.Corrupt, "entry 0"},
		{"an L2 table behind the end", patch{l1At + 8, uint64(1<<63 + 1<<40)}, failure.Corrupt, "entry 1"},
		{"an L2 table twice", patch{l1At + 8, uint64(1<<63 + l2At)}, failure.Corrupt, "entry 1"},
		{"an L2 table in the header", patch{l1At + 8, uint64(1 << 63)}, failure.Corrupt, "entry 1"},
		{"an L2 table on a refcount block", patch{l1At + 8, uint64(1<<63 + 2*cluster)}, failure.Corrupt, "entry 1"},
		{"reserved bits in the L1 table", patch{l1At + 8, uint64(1<<63 + 1<<58 + dataAt)}, failure.Corrupt, "entry 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := qcow2.Open(patched(t, c.patch), durable.ReadWrite)
			refused(t, err, c.class, c.message)
		})
	}
}

func TestAnL2EntryThatIsNotOursIsRefused(t *testing.T) {
	const copied, placed = uint64(1) << 63, uint64(1)<<63 + dataAt
	cases := []struct {
		name             string
		descriptor, subs uint64
		class            failure.Class
		message          string
	}{
		{"compressed", 1<<62 + 4096, 0, failure.Unsupported, "compressed"},
		{"shared", dataAt, 1, failure.Unsupported, "shared"},
		{"data without a place", 0, 1, failure.Corrupt, "no place"},
		{"copied without a place", copied, 0, failure.Corrupt, "no place"},
		{"data and zeros", placed, 1<<32 + 1, failure.Corrupt, "L2 entry"},
		{"reserved bits", placed + 1<<57, 1, failure.Corrupt, "L2 entry"},
		{"the zero bit of plain entries", placed + 1, 1, failure.Corrupt, "L2 entry"},
		{"off its cluster", placed + 512, 1, failure.Corrupt, "L2 entry"},
		{"behind the end", copied + 1<<40, 1, failure.Corrupt, "placed at"},
		{"in the L1 table", copied + l1At, 1, failure.Corrupt, "placed at"},
		{"in the refcount table", copied + refcountTableAt, 1, failure.Corrupt, "placed at"},
		{"on a refcount block", copied + 2*cluster, 1, failure.Corrupt, "placed at"},
		{"on an L2 table", copied + l2At, 1, failure.Corrupt, "placed at"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			o, err := qcow2.Open(patched(t, patch{l2At, c.descriptor}, patch{l2At + 8, c.subs}), durable.ReadWrite)
			must(t, err)
			_, err = o.ReadAt(make([]byte, 512), 0)
			refused(t, err, c.class, c.message)
			_, err = o.WriteAt(content(1), 0)
			refused(t, err, c.class, c.message)
			var last error
			for _, last = range o.Extents(0, o.Size()) {
			}
			refused(t, last, c.class, c.message)
			_, err = o.DataBytes()
			refused(t, err, c.class, c.message)
		})
	}
}

func refused(t *testing.T, err error, class failure.Class, message string) {
	t.Helper()
	if err == nil || failure.Find(err).Class != class || !strings.Contains(err.Error(), message) {
		t.Errorf("got %v, want class %d and %q", err, class, message)
	}
}

// TestAFileCutShortIsRefused cuts an overlay everywhere: it opens only when all that its tables name is there.
func TestAFileCutShortIsRefused(t *testing.T) {
	whole := written(t)
	for _, size := range []int64{0, 1, 103, 104, 512, cluster, 2 * cluster, 3*cluster - 1, 3 * cluster, 4 * cluster} {
		file := whole.clone()
		must(t, file.Truncate(size))
		if _, err := qcow2.Open(file, durable.ReadWrite); err == nil {
			t.Errorf("an overlay cut to %d bytes was opened", size)
		}
	}
	file := whole.clone()
	must(t, file.Truncate(dataAt))
	o, err := qcow2.Open(file, durable.ReadOnly)
	must(t, err)
	_, err = o.ReadAt(make([]byte, 512), 0)
	refused(t, err, failure.Corrupt, "placed at")
}

// TestALastClusterThatEndsEarly is what QEMU may leave: the file ends where the last data did.
func TestALastClusterThatEndsEarly(t *testing.T) {
	for _, mode := range []durable.Mode{durable.ReadOnly, durable.ReadWrite} {
		file := patched(t, patch{l2At + 8, uint64(0xff)})
		must(t, file.Truncate(dataAt+4096))
		o, err := qcow2.Open(file, mode)
		must(t, err)
		got := make([]byte, 8*grain)
		_, err = o.ReadAt(got, 0)
		must(t, err)
		if !carries(got[:grain], 1) || !carries(got[grain:], 0) {
			t.Errorf("mode %d: got %x… %x…", mode, got[:8], got[grain:grain+8])
		}
	}
}

func TestAnOverlayOpenedForReadingIsNotChanged(t *testing.T) {
	file := written(t)
	file.watch = func(o op) error { return fmt.Errorf("%+v on a file that is only read", o) }
	o, err := qcow2.Open(file, durable.ReadOnly)
	must(t, err)
	_, err = o.WriteAt(content(2), 0)
	calls := map[string]error{
		"WriteAt": err, "Zero": o.Zero(0, grain), "Unmap": o.Unmap(0, grain), "Seal": o.Seal(disk.Parent{Name: "base", Format: "raw"}),
	}
	for call, err := range calls {
		if err == nil || strings.Contains(err.Error(), "on a file") {
			t.Errorf("%s: %v", call, err)
		}
	}
	must(t, o.Flush())
	must(t, o.Close())
}

func TestCreateRefusesWhatCannotBe(t *testing.T) {
	for _, size := range []int64{-512, 0, 511, 513, disk.MaxSize + 512} {
		_, err := qcow2.Create(newMemory(), size)
		refused(t, err, failure.Invalid, "size")
	}
	_, err := qcow2.Create(written(t), 1<<20)
	refused(t, err, failure.Exists, "already holds")
}
