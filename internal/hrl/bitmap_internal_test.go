package hrl

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// newBitmap is a bitmap in memory with room for bits bits.
func newBitmap(bits int64) *bitmap {
	pages := ceilDiv(bits, bitsPerPage)
	return &bitmap{
		words: make([]uint64, pages*wordsPerPage), summary: make([]uint64, ceilDiv(pages, bitsPerPage)*wordsPerPage), bits: bits,
	}
}

// runs are all runs of set bits in [from, end).
func (b *bitmap) runs(from, end, longest int64) (found []int64) {
	for first, count := b.next(from, end, longest); count > 0; first, count = b.next(first+count, end, longest) {
		for i := range count {
			found = append(found, first+i)
		}
	}
	return found
}

func TestBitmapIsAsItsModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		size := 1 + random.Int64N(5*bitsPerPage)
		b, model := newBitmap(size), make([]bool, size)
		for range 200 {
			first := random.Int64N(size)
			end := first + 1 + random.Int64N(min(size-first, 1<<random.IntN(18)))
			value := random.IntN(3) > 0
			if value {
				b.touch(first, end)
				b.set(first, end)
			} else {
				b.clear(first, end)
			}
			for i := first; i < end; i++ {
				model[i] = value
			}
			if random.IntN(40) == 0 {
				b.wipe()
				clear(model)
			}
			from := random.Int64N(size)
			to := from + 1 + random.Int64N(size-from)
			compareBits(t, b, model, from, to, 1+random.Int64N(100_000))
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

func compareBits(t *testing.T, b *bitmap, model []bool, from, to, longest int64) {
	t.Helper()
	found := b.runs(from, to, longest)
	at, total, some := 0, int64(0), false
	for i, is := range model {
		if is {
			total++
		}
		if !is || int64(i) < from || int64(i) >= to {
			continue
		}
		some = true
		if at >= len(found) || found[at] != int64(i) {
			t.Fatalf("bit %d is set and was not found", i)
		}
		at++
	}
	if at != len(found) || b.count.Load() != total || b.any(from, to) != some {
		t.Fatalf("%d bits found of %d, %d counted of %d, any: %t", len(found), at, b.count.Load(), total, !some)
	}
}

func TestTouchChangesNothing(t *testing.T) {
	b := newBitmap(3 * bitsPerPage)
	b.set(5, 9)
	before := b.digest()
	b.touch(0, 3*bitsPerPage)
	b.touch(5, 9)
	if b.digest() != before || b.count.Load() != 4 {
		t.Fatal("touching changed a bit")
	}
}

func TestSettersBesideEachOtherLoseNothing(t *testing.T) {
	b := newBitmap(2 * bitsPerPage)
	var group sync.WaitGroup
	for worker := range int64(8) {
		group.Go(func() {
			for i := worker; i < b.bits; i += 8 {
				b.set(i, i+1)
			}
		})
	}
	group.Wait()
	if b.count.Load() != b.bits {
		t.Fatalf("%d of %d bits were counted", b.count.Load(), b.bits)
	}
	if _, count := b.next(0, b.bits, b.bits); count != b.bits {
		t.Fatalf("a run of %d bits is all that was found", count)
	}
}

func TestLayoutIsSmall(t *testing.T) {
	for _, tib := range []int64{1, 3, 64} {
		if got, limit := FileBytes(tib<<40), tib*(68<<20); got > limit {
			t.Errorf("%d TiB take %d bytes of log, at most %d are allowed", tib, got, limit)
		}
	}
	for _, size := range []int64{512, 4096, 4608, 1 << 27, 1<<27 + 512, 64 << 40} {
		l := layoutOf(size)
		at := int64(slots * pageSize)
		for _, a := range l.areas {
			if a.summary != at || a.summaryBytes*8 < a.bitsBytes/pageSize {
				t.Errorf("size %d: summary at %d, %d bytes for %d", size, a.summary, a.summaryBytes, a.bitsBytes)
			}
			at += a.summaryBytes
		}
		for _, a := range l.areas {
			if a.bits != at || a.bitsBytes*8 < a.count {
				t.Errorf("size %d: bits at %d, %d bytes for %d", size, a.bits, a.bitsBytes, a.count)
			}
			at += a.bitsBytes
		}
		if at != l.bytes {
			t.Errorf("size %d: %d bytes, but the areas end at %d", size, l.bytes, at)
		}
	}
}
