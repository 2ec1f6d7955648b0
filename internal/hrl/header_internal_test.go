package hrl

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"

	"vmreplica/internal/disk"
	"vmreplica/internal/replication"
)

func exampleHeader() header {
	return header{
		Sequence: 7, Identity: replication.NewID(), Baseline: replication.NewID(), DiskSize: 1 << 30, Opened: 3,
		BootID: "b7c1", File: fileID{1, 2}, Clean: true, Stamp: disk.Stamp{Inode: 9, Serial: "s"}, Digest: 1 << 63, Live: areaB,
		Lost: lost(Reverted, "it was"),
	}
}

func slotOf(t *testing.T, h header) []byte {
	t.Helper()
	slot, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

func TestHeaderOutlivesOneBadSlot(t *testing.T) {
	older := exampleHeader()
	newer := older
	newer.Sequence, newer.Opened = 8, 4
	a, b := slotOf(t, older), slotOf(t, newer)
	bad := bytes.Clone(b)
	bad[100] ^= 4
	for name, test := range map[string]struct {
		a, b []byte
		want header
	}{
		"both good": {a, b, newer}, "other order": {b, a, newer}, "later torn": {a, bad, older}, "earlier bad": {bad, b, newer},
		"never written": {a, make([]byte, pageSize), older},
	} {
		if got, err := newest(test.a, test.b); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := newest(bad, make([]byte, pageSize)); err == nil {
		t.Error("two bad slots gave a header")
	}
}

func TestEveryFlippedBitOfASlotIsSeen(t *testing.T) {
	slot := slotOf(t, exampleHeader())
	end := bytes.IndexByte(slot[preludeBytes:], 0) + preludeBytes
	for bit := range end * 8 {
		slot[bit/8] ^= 1 << (bit % 8)
		if _, err := decode(slot); err == nil {
			t.Fatalf("bit %d flipped and nobody saw it", bit)
		}
		slot[bit/8] ^= 1 << (bit % 8)
	}
}

// FuzzHeader decodes what has the right prelude and digest, which no chance would give it, and what has not.
func FuzzHeader(f *testing.F) {
	slot, err := exampleHeader().encode()
	if err != nil {
		f.Fatal(err)
	}
	body := slot[preludeBytes:]
	f.Add(body[:bytes.IndexByte(body, 0)])
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := decode(body); err == nil {
			t.Fatal("no header was taken for one")
		}
		slot := make([]byte, pageSize)
		copy(slot, magic)
		slot[8] = version
		body = body[:min(len(body), pageSize-preludeBytes)]
		binary.LittleEndian.PutUint32(slot[12:], uint32(len(body)))
		binary.LittleEndian.PutUint64(slot[16:], xxhash.Sum64(body))
		copy(slot[preludeBytes:], body)
		h, err := decode(slot)
		if err != nil {
			return
		}
		first, err := h.encode()
		if err != nil {
			return // JSON spells it longer
		}
		again, err := decode(first)
		if err != nil || !bytes.Equal(slotOf(t, again), first) {
			t.Fatalf("%+v became %+v, %v", h, again, err)
		}
	})
}
