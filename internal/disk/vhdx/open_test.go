package vhdx_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"vmreplica/internal/disk"
	"vmreplica/internal/disk/vhdx"
	"vmreplica/internal/durable"
	"vmreplica/internal/failure"
)

// damage is a change of a file, and what is made of it.
type damage struct {
	name string
	do   func(p []byte)
	// class is that of the refusal; opens says that it opens all the same and Check finds something.
	class failure.Class
	opens bool
	says  string
}

var damages = []damage{
	{name: "first header", do: func(p []byte) { p[64<<10]++ }, opens: true, says: "header 1"},
	{name: "second header", do: func(p []byte) { p[128<<10+90]++ }, opens: true, says: "header 2"},
	{name: "both headers", do: func(p []byte) { p[64<<10]++; p[128<<10]++ }, class: failure.Corrupt, says: "neither header"},
	{name: "first region table", do: func(p []byte) { p[192<<10+20]++ }, opens: true, says: "region table 1"},
	{name: "second region table", do: func(p []byte) { p[256<<10]++ }, opens: true, says: "region table 2"},
	{name: "both region tables", do: func(p []byte) { p[192<<10]++; p[256<<10]++ }, class: failure.Corrupt,
		says: "neither region table"},
	{name: "identifier", do: func(p []byte) { p[0]++ }, class: failure.Corrupt, says: "creation did not finish"},
	{name: "unknown required region", do: func(p []byte) {
		table := p[192<<10:][:64<<10]
		binary.LittleEndian.PutUint32(table[8:], 3)
		copy(table[16+64:], table[16:48])
		table[16+64]++
		mend(table)
	}, class: failure.Unsupported, says: "needs the region"},
	{name: "incomplete", do: func(p []byte) { addItem(p, "f085cc71691b284e9558c3bf83ae75d3") }, class: failure.Corrupt,
		says: "did not finish"},
	{name: "unknown required item", do: func(p []byte) { addItem(p, "00112233445566778899aabbccddeeff") },
		class: failure.Unsupported, says: "needs the metadata item"},
	{name: "block size", do: func(p []byte) { p[2*mib+64<<10+2] = 3 }, class: failure.Corrupt, says: "block size"},
	{name: "log without entries", do: func(p []byte) {
		for _, at := range []int{64 << 10, 128 << 10} {
			p[at+48] = 1
			mend(p[at:][:4096])
		}
	}, class: failure.Corrupt, says: "no entries that can be replayed"},
	{name: "block beyond the end", do: func(p []byte) { entry(p, 0, 6|1<<40) }, opens: true, says: "block 0 has"},
	{name: "block in the log", do: func(p []byte) { entry(p, 0, 6|1<<20) }, opens: true, says: "own structures"},
	{name: "shared block", do: func(p []byte) { entry(p, 1, binary.LittleEndian.Uint64(p[3*mib:])) }, opens: true,
		says: "shares"},
	{name: "bad state", do: func(p []byte) { entry(p, 2, 5) }, opens: true, says: "the state 5"},
	{name: "partial without parent", do: func(p []byte) { entry(p, 2, 7|4<<20) }, opens: true, says: "no parent"},
	{name: "zero with a place", do: func(p []byte) { entry(p, 2, 2|4<<20) }, opens: true, says: "the state 2 and the place"},
	{name: "reserved bits", do: func(p []byte) { entry(p, 2, 1<<10) }, opens: true, says: "reserved bits"},
}

func entry(p []byte, index int, value uint64) {
	binary.LittleEndian.PutUint64(p[3*mib+8*index:], value)
}

// addItem adds a required metadata item with the given GUID, in the file's byte order.
func addItem(p []byte, id string) {
	table := p[2*mib:]
	count := int(binary.LittleEndian.Uint16(table[10:]))
	at := table[32+32*count:]
	copy(at, table[32:64])
	for i := range 16 {
		var b byte
		for _, c := range []byte(id[2*i : 2*i+2]) {
			b = b<<4 | byte(strings.IndexByte("0123456789abcdef", c))
		}
		at[i] = b
	}
	binary.LittleEndian.PutUint16(table[10:], uint16(count+1))
}

func TestDamage(t *testing.T) {
	whole := newSample(t, false, false)
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			s := whole
			s.bytes = append([]byte(nil), whole.bytes...)
			c.do(s.bytes)
			file := put(t, s.bytes, s.size)
			_, err := vhdx.Open(file, durable.ReadOnly)
			if c.opens != (err == nil) || err != nil && (failure.Find(err).Class != c.class || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("opening: %v", err)
			}
			found := ""
			for finding, err := range vhdx.Check(file) {
				must(t, err)
				if finding.Severity == disk.Damaged {
					found += finding.Message + "\n"
				}
			}
			if !strings.Contains(found, c.says) {
				t.Errorf("Check finds %q", found)
			}
		})
	}
}

// A file of one kind is not opened as the other, and the message says what it is.
func TestKindsAreToldApart(t *testing.T) {
	layer, base := newSample(t, true, true), newSample(t, false, false)
	_, err := vhdx.Open(put(t, layer.bytes, layer.size), durable.ReadOnly)
	if err == nil || !strings.Contains(err.Error(), "p.vhdx") {
		t.Errorf("a layer opened as a base: %v", err)
	}
	if _, err = vhdx.OpenDifferencing(put(t, base.bytes, base.size), durable.ReadOnly); err == nil {
		t.Error("a base was opened as a layer")
	}
	if _, err := vhdx.Create(put(t, base.bytes, base.size), vhdx.Options{SizeBytes: mib}); failure.Find(err).Class != failure.Exists {
		t.Errorf("creating over a file: %v", err)
	}
	for _, o := range []vhdx.Options{
		{}, {SizeBytes: 513}, {SizeBytes: 512, LogicalSectorSize: 4096}, {SizeBytes: 65 << 40}, {SizeBytes: mib, BlockBytes: 3 * mib},
		{SizeBytes: mib, BlockBytes: 512 * mib}, {SizeBytes: mib, LogicalSectorSize: 1024},
	} {
		if _, err := vhdx.Create(put(t, nil, 0), o); failure.Find(err).Class != failure.Invalid {
			t.Errorf("creating %+v: %v", o, err)
		}
	}
}

// A log that says the file was longer when it was written is a file that was cut.
func TestCutFile(t *testing.T) {
	s := newSample(t, false, true)
	_, err := vhdx.Open(put(t, s.bytes[:4*mib], s.size-mib), durable.ReadOnly)
	if err == nil || !strings.Contains(err.Error(), "it was cut") {
		t.Errorf("opening: %v", err)
	}
}

func TestParents(t *testing.T) {
	path := filepath.Join(memoryDir(t), "disk")
	l, err := vhdx.CreateDifferencing(newFile(t, path), vhdx.Options{SizeBytes: 10 * mib})
	must(t, err)
	if l.Parent() != (disk.Parent{}) || l.Accepts(disk.None) {
		t.Errorf("a new layer has the parent %+v", l.Parent())
	}
	want := disk.Parent{Name: "Bäse 1.vhdx", Path: "/store/vm/Bäse 1.vhdx", Format: "vhdx", Identity: disk.Identity{1, 2, 3}}
	id := l.Identity()
	must(t, l.Seal(disk.Parent{Name: "other.vhdx", Format: "vhdx", Identity: disk.Identity{9}}), l.Seal(want))
	if l.Identity() != id {
		t.Error("sealing changed the identity")
	}
	for _, bad := range []disk.Parent{
		{Name: "a/b", Format: "vhdx", Identity: id}, {Name: "a", Format: "raw", Identity: id}, {Name: "a", Format: "vhdx"},
		{Format: "vhdx", Identity: id}, {Name: strings.Repeat("x", 40000), Format: "vhdx", Identity: id},
	} {
		if err := l.Seal(bad); failure.Find(err).Class != failure.Invalid {
			t.Errorf("sealing with %.40q: %v", bad.Name, err)
		}
	}
	must(t, l.Close())
	l, err = vhdx.OpenDifferencing(openFile(t, path), durable.ReadOnly)
	must(t, err)
	if l.Parent() != want || !l.Accepts(want.Identity) || l.Accepts(id) {
		t.Errorf("the parent is %+v, want %+v", l.Parent(), want)
	}
	info := describe(t, path)
	if info.Kind != "differencing" || *info.Parent != want || info.UnitBytes != 2*mib || info.Identity != id {
		t.Errorf("described as %+v", info)
	}
	if err := l.Seal(want); err == nil {
		t.Error("a layer that was opened for reading was sealed")
	}
	must(t, l.Close())
}

// An identity that is given stands for the session, and is replaced by the next one's first change.
func TestIdentities(t *testing.T) {
	path := filepath.Join(memoryDir(t), "disk")
	i, err := vhdx.Create(newFile(t, path), vhdx.Options{SizeBytes: 10 * mib})
	must(t, err)
	id := disk.Identity{0xab, 1}
	must(t, i.SetIdentity(id))
	write := func(want bool) {
		t.Helper()
		_, err := i.WriteAt([]byte("x"), 77)
		must(t, err, i.Flush())
		if (i.Identity() == id) != want || describe(t, path).Identity != i.Identity() {
			t.Errorf("the identity is %v", i.Identity())
		}
	}
	write(true)
	must(t, i.Close())
	i, err = vhdx.Open(openFile(t, path), durable.ReadWrite)
	must(t, err)
	if i.Identity() != id {
		t.Errorf("opening changed the identity to %v", i.Identity())
	}
	write(false)
	must(t, i.Close())
}

// A stamp taken after the last write is that of the closed file.
func TestStamp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	i, err := vhdx.Create(newFile(t, path), vhdx.Options{SizeBytes: 10 * mib})
	must(t, err)
	_, err = i.WriteAt([]byte("x"), 5*mib)
	must(t, err)
	stamp, err := i.Stamp()
	must(t, err, i.Close())
	i, err = vhdx.Open(openFile(t, path), durable.ReadWrite)
	must(t, err)
	again, err := i.Stamp()
	must(t, err, i.Close())
	if stamp != again {
		t.Errorf("stamped %+v, and closed %+v", stamp, again)
	}
	clean(t, path)
}

// Opening the largest disk and asking for its extents takes neither time nor memory.
func TestLargestDisk(t *testing.T) {
	path := filepath.Join(memoryDir(t), "disk")
	i, err := vhdx.Create(newFile(t, path), vhdx.Options{SizeBytes: disk.MaxSize})
	must(t, err)
	for n := range int64(1024) {
		_, err := i.WriteAt([]byte("x"), n*(disk.MaxSize/1024))
		must(t, err)
	}
	must(t, i.Close())
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	file := openFile(t, path)
	begun := time.Now()
	i, err = vhdx.Open(file, durable.ReadOnly)
	must(t, err)
	_, err = i.ReadAt(make([]byte, grain), disk.MaxSize/2)
	must(t, err)
	if took := time.Since(begun); took > 100*time.Millisecond {
		t.Errorf("opening took %v", took)
	}
	for _, err := range i.Extents(0, i.Size()) {
		must(t, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 32*mib {
		t.Errorf("%d bytes are held", used)
	}
	must(t, i.Close())
}

func TestChangesAreRefusedReadOnly(t *testing.T) {
	s := newSample(t, true, true)
	l, err := vhdx.OpenDifferencing(put(t, s.bytes, s.size), durable.ReadOnly)
	must(t, err)
	_, err = l.WriteAt(zeros[:], 0)
	for _, err := range []error{err, l.Zero(0, grain), l.Unmap(0, grain), l.SetIdentity(disk.Identity{1})} {
		if err == nil || errors.Is(err, disk.ErrRange) {
			t.Errorf("changing a file that is open for reading: %v", err)
		}
	}
	must(t, l.Flush())
}
