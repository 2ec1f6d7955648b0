package nbd_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"vmreplica/internal/nbd"
)

// both runs a test with simple and with structured replies.
func both(t *testing.T, test func(t *testing.T, structured bool)) {
	for _, structured := range []bool{false, true} {
		t.Run(fmt.Sprintf("structured %v", structured), func(t *testing.T) { test(t, structured) })
	}
}

func TestRequestsThatAreRefusedDoNotReachTheExport(t *testing.T) {
	cases := []struct {
		name string
		request
		want uint32
	}{
		{"a read at the end", request{command: read, offset: diskSize, length: 1}, einval},
		{"a read over the end", request{command: read, offset: diskSize - 1, length: 2}, einval},
		{"a read that wraps", request{command: read, offset: math.MaxUint64, length: 1}, einval},
		{"a read that wraps to the start", request{command: read, offset: math.MaxUint64 - 511, length: 1024}, einval},
		{"a read at a negative offset", request{command: read, offset: 1 << 63, length: 512}, einval},
		{"a read above 32 MiB", request{command: read, length: 32<<20 + 1}, eoverflow},
		{"a read of 4 GiB", request{command: read, length: math.MaxUint32}, eoverflow},
		{"a write at the end", request{command: write, offset: diskSize, length: 1, payload: []byte{1}}, enospc},
		{"a write over the end", request{command: write, offset: diskSize - 1, length: 2, payload: []byte{1, 2}}, enospc},
		{"a write that wraps", request{command: write, offset: math.MaxUint64, length: 1, payload: []byte{1}}, enospc},
		{"a write above 32 MiB", request{command: write, length: 32<<20 + 1, payload: make([]byte, 32<<20+1)}, einval},
		{"a trim over the end", request{command: trim, offset: diskSize - 1, length: 2}, einval},
		{"a trim that wraps", request{command: trim, offset: math.MaxUint64, length: math.MaxUint32}, einval},
		{"zeroes over the end", request{command: zeroes, offset: 1, length: diskSize}, enospc},
		{"zeroes that wrap", request{command: zeroes, offset: math.MaxUint64 - 4095, length: 4096}, enospc},
		{"a flush with an offset", request{command: flush, offset: 512}, einval},
		{"a flush with a length", request{command: flush, length: 512}, einval},
		{"a status over the end", request{command: status, offset: diskSize - 1, length: 2}, einval},
		{"a status of nothing", request{command: status}, einval},
		{"CACHE", request{command: cache, length: 512}, einval},
		{"an unknown command", request{command: 4711}, einval},
		{"an unknown command with FUA", request{command: 8, flags: fua}, einval},
		{"a read with NO_HOLE", request{command: read, flags: noHole, length: 512}, einval},
		{"a read with an unknown flag", request{command: read, flags: 1 << 15, length: 512}, einval},
		{"a write with DF", request{command: write, flags: df, length: 512, payload: make([]byte, 512)}, einval},
		{"a write with FAST_ZERO", request{command: write, flags: fastZero, length: 1, payload: []byte{1}}, einval},
		{"a trim with NO_HOLE", request{command: trim, flags: noHole, length: 512}, einval},
		{"zeroes with REQ_ONE", request{command: zeroes, flags: reqOne, length: 512}, einval},
	}
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		c := enter(t, one(t, nbd.Options{}, export), structured)
		for _, r := range cases {
			if got := c.do(r.request).err; got != r.want {
				t.Errorf("%s: answered %d, want %d", r.name, got, r.want)
			}
		}
		if n := export.called(""); n != 0 {
			t.Errorf("the export was called %d times", n)
		}
		c.inStep()
	})
}

func TestDFIsForStructuredReplies(t *testing.T) {
	r := one(t, nbd.Options{}, newMemory(diskSize))
	for structured, want := range map[bool]uint32{false: einval, true: 0} {
		if got := enter(t, r, structured).do(request{command: read, flags: df, length: 1 << 20}).err; got != want {
			t.Errorf("structured %v: answered %d, want %d", structured, got, want)
		}
	}
}

func TestBlockStatusNeedsItsContext(t *testing.T) {
	c := enter(t, one(t, nbd.Options{}, newMemory(diskSize)), false)
	if got := c.do(request{command: status, length: 512}).err; got != einval {
		t.Errorf("answered %d", got)
	}
}

func TestAReadOnlyExportIsNotWritten(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		export.readOnly = true
		c := enter(t, one(t, nbd.Options{}, export), structured)
		for _, r := range []request{
			{command: write, length: 512, payload: make([]byte, 512)},
			{command: write, length: 0},
			{command: write, offset: diskSize, length: 512, payload: make([]byte, 512)},
			{command: write, length: 40 << 20, payload: make([]byte, 40<<20)},
			{command: trim, length: 512},
			{command: zeroes, flags: noHole, length: 512},
			{command: zeroes, flags: fastZero, length: 512},
		} {
			if got := c.do(r).err; got != eperm {
				t.Errorf("command %d is answered %d", r.command, got)
			}
		}
		if n := export.called(""); n != 0 {
			t.Errorf("the export was called %d times", n)
		}
		if got := c.do(request{command: flush}).err; got != 0 {
			t.Errorf("a flush is answered %d", got)
		}
		c.inStep()
	})
}

func TestEmptyRequestsSucceed(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		c := enter(t, one(t, nbd.Options{}, export), structured)
		for _, offset := range []uint64{0, diskSize} {
			for _, command := range []uint16{read, write, trim, zeroes} {
				if got := c.do(request{command: command, offset: offset}).err; got != 0 {
					t.Errorf("command %d of nothing at %d is answered %d", command, offset, got)
				}
			}
		}
		if n := export.called(""); n != 0 {
			t.Errorf("the export was called %d times", n)
		}
	})
}

func TestAnOtherMagicEndsTheConnection(t *testing.T) {
	r := one(t, nbd.Options{}, newMemory(diskSize))
	for _, magic := range []uint32{0, 0x12560953, 0x25609514, 0x21e41c71, 0x13956025} {
		c := enter(t, r, true)
		c.inStep()
		packed := request{command: read, length: 512}.packed()
		binary.BigEndian.PutUint32(packed, magic)
		c.put(packed)
		c.closed()
	}
}

// TestAHistory compares requests of all kinds and alignments with a slice of bytes.
func TestAHistory(t *testing.T) {
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(diskSize)
		c := enter(t, one(t, nbd.Options{}, export), structured)
		want := make([]byte, diskSize)
		random := rand.New(rand.NewPCG(7, 7))
		for step := range 2000 {
			off := random.Uint64N(diskSize + 1)
			n := random.Uint64N(min(diskSize-off, 1<<random.Uint64N(20)) + 1)
			r := request{command: []uint16{read, write, trim, zeroes}[random.IntN(4)], offset: off, length: uint32(n)}
			r.flags = uint16(random.IntN(2)) * fua
			switch r.command {
			case write:
				r.payload = make([]byte, n)
				for i := range r.payload {
					r.payload[i] = byte(random.Uint32())
				}
				copy(want[off:], r.payload)
			case trim, zeroes:
				clear(want[off : off+n])
			}
			got := c.do(r)
			if got.err != 0 || r.command == read && !bytes.Equal(got.data, want[off:off+n]) {
				t.Fatalf("step %d, command %d of %d bytes at %d: answered %d with other bytes", step, r.command, n, off, got.err)
			}
		}
		if !bytes.Equal(export.content(), want) {
			t.Error("the export holds other bytes")
		}
	})
}

func TestTheLargestRequests(t *testing.T) {
	const size = 32<<20 + 512
	both(t, func(t *testing.T, structured bool) {
		export := newMemory(size)
		c := enter(t, one(t, nbd.Options{MaxInFlightBytes: 1 << 20}, export), structured)
		payload := make([]byte, 32<<20)
		for i := range payload {
			payload[i] = byte(i >> 9)
		}
		if got := c.do(request{command: write, offset: 512, length: 32 << 20, payload: payload}).err; got != 0 {
			t.Fatalf("a write is answered %d", got)
		}
		if got := c.do(request{command: read, offset: 512, length: 32 << 20}); !bytes.Equal(got.data, payload) {
			t.Fatalf("a read is answered %d with %d bytes, or with others", got.err, len(got.data))
		}
	})
}

// huge is an export whose ranges need more than 32 bits; it takes note of what it is asked.
type huge struct {
	*memory
	off, n int64
}

func (h *huge) Size() int64 { return 8 << 40 }

func (h *huge) Trim(off, n int64) error {
	h.change(func() { h.off, h.n = off, n })
	return nil
}

func (h *huge) Zero(off, n int64, _ nbd.ZeroOptions) error { return h.Trim(off, n) }

func TestTrimAndZeroesOf4GiB(t *testing.T) {
	export := &huge{memory: newMemory(0)}
	c := enter(t, one(t, nbd.Options{}, export), true)
	for _, command := range []uint16{trim, zeroes} {
		off := uint64(8<<40 - math.MaxUint32)
		if got := c.do(request{command: command, offset: off, length: math.MaxUint32}).err; got != 0 {
			t.Fatalf("command %d is answered %d", command, got)
		}
		export.change(func() {
			if uint64(export.off) != off || export.n != math.MaxUint32 {
				t.Errorf("command %d asks for %d bytes at %d", command, export.n, export.off)
			}
		})
	}
}

func TestFlagsOfZeroesReachTheExport(t *testing.T) {
	export := newMemory(diskSize)
	c := enter(t, one(t, nbd.Options{}, export), true)
	for flags, want := range map[uint16]nbd.ZeroOptions{
		0:                 {},
		noHole:            {KeepSpace: true},
		fastZero:          {Fast: true},
		noHole | fastZero: {KeepSpace: true, Fast: true},
	} {
		got := c.do(request{command: zeroes, flags: flags, length: 512})
		export.change(func() {
			if got.err != 0 || export.last != want {
				t.Errorf("flags %d: answered %d, asked for %+v", flags, got.err, export.last)
			}
		})
	}
}
