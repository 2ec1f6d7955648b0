package nbd_test

import (
	"bytes"
	"iter"
	"math"
	"slices"
	"testing"

	"vmreplica/internal/disk"
	"vmreplica/internal/nbd"
)

// extentsOf yields kinds in pieces of 4 KiB over the whole range asked for.
func extentsOf(kinds ...disk.Kind) func(off, n int64) iter.Seq2[disk.Extent, error] {
	return func(off, n int64) iter.Seq2[disk.Extent, error] {
		return func(yield func(disk.Extent, error) bool) {
			for end := off + n; off < end; {
				length := min(4096-off%4096, end-off)
				kind := kinds[int(off/4096)%len(kinds)]
				if !yield(disk.Extent{Offset: off, Length: length, Kind: kind}, nil) {
					return
				}
				off += length
			}
		}
	}
}

func TestBlockStatus(t *testing.T) {
	export := newMemory(diskSize)
	export.extents = extentsOf(disk.Data, disk.Zero, disk.Zero, disk.Unmapped)
	c := enter(t, one(t, nbd.Options{}, export), true)
	got := c.do(request{command: status, offset: 100, length: 20 << 10})
	want := pack(uint32(4096-100), uint32(0), uint32(8192), uint32(2), uint32(4096), uint32(3),
		uint32(4096), uint32(0), uint32(100), uint32(2))
	if !bytes.Equal(got.status, want) {
		t.Errorf("status %x, want %x", got.status, want)
	}
	got = c.do(request{command: status, flags: reqOne, offset: 4096, length: 20 << 10})
	if want := pack(uint32(8192), uint32(2)); !bytes.Equal(got.status, want) {
		t.Errorf("with REQ_ONE %x, want %x", got.status, want)
	}
}

func TestBlockStatusOfVeryManyExtentsIsCutShort(t *testing.T) {
	export := &huge{memory: newMemory(0)}
	export.extents = extentsOf(disk.Data, disk.Unmapped)
	c := enter(t, one(t, nbd.Options{}, export), true)
	got := c.do(request{command: status, offset: 4096, length: math.MaxUint32})
	if count := len(got.status) / 8; count == 0 || count > 1<<20 {
		t.Fatalf("%d descriptors", count)
	}
	for i, d := range slices.Collect(slices.Chunk(got.status, 8)) {
		want := pack(uint32(4096), []uint32{3, 0}[i%2])
		if !bytes.Equal(d, want) {
			t.Fatalf("descriptor %d is %x, want %x", i, d, want)
		}
	}
}

// yielding is exactly these extents.
func yielding(extents []disk.Extent) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestExtentsThatSaySomethingElseAreAnError(t *testing.T) {
	answers := map[string][]disk.Extent{
		"nothing":          nil,
		"another start":    {{Offset: 512, Length: 4096, Kind: disk.Data}},
		"an empty one":     {{Offset: 4096, Length: 0, Kind: disk.Data}},
		"a negative one":   {{Offset: 4096, Length: -1, Kind: disk.Data}},
		"beyond the range": {{Offset: 4096, Length: 8192, Kind: disk.Data}},
		"absent":           {{Offset: 4096, Length: 4096, Kind: disk.Absent}},
		"a gap":            {{Offset: 4096, Length: 512, Kind: disk.Data}, {Offset: 5120, Length: 512, Kind: disk.Data}},
	}
	export := newMemory(diskSize)
	c := enter(t, one(t, nbd.Options{}, export), true)
	for name, extents := range answers {
		export.change(func() {
			export.extents = func(int64, int64) iter.Seq2[disk.Extent, error] { return yielding(extents) }
		})
		if got := c.do(request{command: status, offset: 4096, length: 4096}).err; got != eio {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	c.inStep()
}
