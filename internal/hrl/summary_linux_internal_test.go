package hrl

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vmreplica/internal/durable"
	"vmreplica/internal/replication"
)

// shipped is what is sent of the epoch, block by block, as one who ships does it.
func shipped(t *testing.T, l *Log) (blocks []int64) {
	t.Helper()
	for at := int64(0); ; {
		found, n, err := l.Next(at, l.Size(), BlockSize)
		check(t, err)
		if n <= 0 {
			return blocks
		}
		blocks = append(blocks, found/BlockSize)
		check(t, l.Sent(found, n))
		at = found + n
	}
}

// Of the pages of a mapping that were written back before a power loss, one with marks may be there and the summary that
// leads to it not. The same is left by damage to a page that had no mark.
func TestMarksThatNoSummaryLeadsToAreFound(t *testing.T) {
	dir, err := durable.OpenDir(t.TempDir())
	check(t, err)
	defer dir.Close()
	d := Disk{Identity: replication.NewID(), Size: 1<<30 + 512}
	for what, closed := range map[string]bool{"power loss": false, "damage": true} {
		for area := range 3 {
			l, err := Create(dir, what, d)
			check(t, err)
			check(t, l.Begin(replication.NewID()))
			if closed {
				check(t, l.settle(d.Stamp))
			} else {
				check(t, l.changed(func(h *header) { h.BootID = "an earlier one" }))
			}
			stray := []*bitmap{l.first, l.epoch.Load(), l.sent}[area]
			stray.words[0] |= 1<<5 | 1<<9
			stray.words[len(stray.words)-1] |= 1 << 63 // of no block
			check(t, l.Abandon())

			l, err = Open(dir, what, d)
			check(t, err)
			check(t, l.Begin(replication.NewID())) // as after a resync, which reads everything
			check(t, l.Mark(100*BlockSize, 1))
			counted := l.LiveBytes() / BlockSize
			check(t, l.Flip())
			blocks := shipped(t, l)
			if !slices.Contains(blocks, 100) || int64(len(blocks)) != counted || l.EpochBytes() != 0 {
				t.Errorf("%s in area %d: the blocks %v of %d are shipped, %d bytes are left", what, area, blocks, counted, l.EpochBytes())
			}
			check(t, l.Forget())
			check(t, l.Abandon())
			check(t, dir.Remove(what))
		}
	}
}

// An agent that is killed while it marks leaves the first stores of a set and not the others. Where the summary cannot be
// written the bits must not be either.
func TestTheSummaryIsWrittenBeforeTheBits(t *testing.T) {
	for name, set := range map[string]func(*bitmap){
		"one bit": func(b *bitmap) { b.set(7, 8) }, "pages": func(b *bitmap) { b.set(5, 3*bitsPerPage) },
	} {
		b := newBitmap(4 * bitsPerPage)
		page, err := unix.Mmap(-1, 0, pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		check(t, err)
		b.summary = wordsOf(page)
		if caught(func() { set(b) }) == nil {
			t.Fatal("a page that is not there is written to")
		}
		for _, word := range b.words {
			if word != 0 {
				t.Fatalf("%s: bits are set that the summary does not lead to", name)
			}
		}
		check(t, unmap(page))
	}
}

// A log that faulted is lost, and may be begun anew: what is set is counted then.
func TestWhatIsSetBeforeAFaultIsCounted(t *testing.T) {
	b := newBitmap(2 * bitsPerPage)
	memory, err := unix.Mmap(-1, 0, 2*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	check(t, err)
	b.words = wordsOf(memory)
	check(t, unix.Mprotect(memory[pageSize:], unix.PROT_NONE))
	if caught(func() { b.set(bitsPerPage-3, bitsPerPage+3) }) == nil || b.count.Load() != 3 {
		t.Fatalf("%d bits are counted", b.count.Load())
	}
	check(t, unix.Mprotect(memory[pageSize:], unix.PROT_READ|unix.PROT_WRITE))
	b.set(bitsPerPage, bitsPerPage+3)
	check(t, unix.Mprotect(memory[pageSize:], unix.PROT_NONE))
	if caught(func() { b.clear(bitsPerPage-3, bitsPerPage+3) }) == nil || b.count.Load() != 3 {
		t.Fatalf("%d bits are counted", b.count.Load())
	}
	check(t, unmap(memory))
}
