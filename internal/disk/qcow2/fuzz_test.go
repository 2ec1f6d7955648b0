package qcow2_test

import (
	"errors"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/disktest"
	"vmreplica/internal/disk/qcow2"
	"vmreplica/internal/durable"
)

// FuzzOpen opens a file put together of what the fuzzer gives for its header, refcount table, L1 table and first L2
// table; the rest of it, up to size, is a hole. Whatever it is, nothing outside the file is read, memory stays
// bounded, and what is written to an overlay that opens is read again.
func FuzzOpen(f *testing.F) {
	whole := written(f)
	part := func(at int64) []byte {
		p := make([]byte, 512)
		_, err := whole.ReadAt(p, at)
		must(f, err)
		return p
	}
	header, counts, l1, l2 := part(0), part(refcountTableAt), part(l1At), part(l2At)
	f.Add(header, counts, l1, l2, int64(6*cluster))
	f.Add(header, counts, l1, l2, int64(5*cluster+4096))
	f.Add(header, counts, []byte{}, []byte{}, int64(4*cluster))
	f.Add(header[:80], counts, l1, l2, int64(103))
	sealed := written(f)
	o, err := qcow2.Open(sealed, durable.ReadWrite)
	must(f, err)
	must(f, o.Seal(disk.Parent{Name: "parent", Format: "raw"}))
	withParent := make([]byte, 512)
	_, err = sealed.ReadAt(withParent, 0)
	must(f, err)
	f.Add(withParent, counts, l1, l2, int64(6*cluster))
	f.Fuzz(func(t *testing.T, header, counts, l1, l2 []byte, size int64) {
		file := newMemory()
		for at, part := range map[int64][]byte{0: header, refcountTableAt: counts, l1At: l1, l2At: l2} {
			file.put(at, part[:min(len(part), cluster)])
		}
		must(t, file.Truncate(min(max(size, 0), 1<<40)))
		before := disktest.TotalAllocated()
		fuzzRead(t, file)
		if used := disktest.TotalAllocated() - before; used > 64<<20 {
			t.Errorf("%d bytes were allocated", used)
		}
		fuzzWrite(t, file)
	})
}

// inside refuses reads that leave the file.
type inside struct {
	*memory
	t *testing.T
}

func (f inside) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > f.size {
		f.t.Errorf("reading %d bytes at %d of a file of %d", len(p), off, f.size)
	}
	return f.memory.ReadAt(p, off)
}

func fuzzRead(t *testing.T, file *memory) {
	o, err := qcow2.Open(inside{file, t}, durable.ReadOnly)
	if err != nil {
		return
	}
	o.Parent()
	next, looked := int64(0), 0
	var room [64 << 10]byte
	for e, err := range o.Extents(0, o.Size()) {
		if err != nil {
			return
		}
		if e.Offset != next || e.Length <= 0 || e.End() > o.Size() {
			t.Fatalf("extent %+v where %d follows, of %d", e, next, o.Size())
		}
		next = e.End()
		if looked++; looked > 64 {
			continue
		}
		_, err := o.ReadAt(room[:min(e.Length, int64(len(room)))], e.Offset)
		if (err != nil) != (e.Kind == disk.Absent) || err != nil && !errors.Is(err, disk.ErrAbsent) {
			t.Errorf("reading %+v: %v", e, err)
		}
	}
	if next != o.Size() {
		t.Errorf("the extents end at %d of %d", next, o.Size())
	}
}

// fuzzWrite writes into the first cluster, the third and the last, to different places within them: that two entries
// name one cluster of the file is found by `qemu-img check` alone.
func fuzzWrite(t *testing.T, file *memory) {
	o, err := qcow2.Open(inside{file, t}, durable.ReadWrite)
	if err != nil {
		return
	}
	written := make(map[int64]uint64)
	for stamp, g := range []int64{0, 70, (o.Size() - 1) / grain} {
		n := min(grain, o.Size()-g*grain)
		if n <= 0 || stamp == 2 && (g%32 == 0 || g%32 == 70%32) {
			continue
		}
		if _, err := o.WriteAt(content(uint64(stamp) + 100)[:n], g*grain); err == nil {
			written[g] = uint64(stamp) + 100
		}
	}
	must(t, o.Close())
	o, err = qcow2.Open(inside{file, t}, durable.ReadOnly)
	must(t, err)
	for g, stamp := range written {
		got := make([]byte, min(grain, o.Size()-g*grain))
		if _, err := o.ReadAt(got, g*grain); err != nil || !carries(got, stamp) {
			t.Errorf("subcluster %d was written and reads %x, %v", g, got[:8], err)
		}
	}
}
